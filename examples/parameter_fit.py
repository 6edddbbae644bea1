"""A physics fit whose parameters differ in scale by more than a million.

An enzyme turns over its substrate by Michaelis-Menten kinetics (Michaelis & Menten 1913),

    dS/dt = -Vmax S / (Km + S),     signal = gain * S,

with Vmax 5e-4 uM/s, Km 30 uM, gain 2000 counts/uM, and S(0) = 100 uM known. A detector
measures 200 points over 5e5 s, with a noise of 2000 counts. The three parameters are
fitted from starts that are off by a factor of 2 to 5 in each, up or down. A fit has
arrived when it describes the data as well as the truth does.

First the parameters as they are. No one learning rate serves them, and one first step
for all serves Rprop badly too; but irprop_plus takes a first and a largest step for
each parameter (learning_rate and max_step_size as trees), here in proportion to the
starts, which changes nothing in the model. Beside it: Adam, and Optimistix's BFGS and
LevenbergMarquardt, which arrives from fewer starts, but much sooner.

Then the parameters in units of their starts, the remedy for a method that needs one.
Rprop takes the same path as before; BFGS, and above all LevenbergMarquardt, which alone
makes use of a sum of squares, now beat it in both respects. For such a fit, use that.

An evaluation is one of the loss with its gradient, or of the residuals with their
Jacobian (LevenbergMarquardt), those of rejected steps included. The plot counts the
starts that have arrived, as the data profiles of More & Wild (2009) do.

Run: python examples/parameter_fit.py
"""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import optimistix
import scipy.special
from _common import COLORS, parser, plt, positive, save
from tqdm import tqdm

import optax_rprop

jax.config.update("jax_enable_x64", True)

TRUTH = {"Vmax": 5e-4, "Km": 30.0, "gain": 2e3}
SUBSTRATE = 100.0
NOISE = 2e3
TIMES = np.linspace(0, 5e5, 200)

Params = dict[str, Any]
Residuals = Callable[[Params], jax.Array]
Method = (
    optax.GradientTransformation
    | optimistix.AbstractMinimiser
    | optimistix.AbstractLeastSquaresSolver
)


def substrate(params: Params) -> jax.Array:
    """S at TIMES, by classical Runge-Kutta steps between them."""
    step = TIMES[1] - TIMES[0]

    def rate(s):
        return -params["Vmax"] * s / (params["Km"] + s)

    def advance(s, _):
        k1 = rate(s)
        k2 = rate(s + step / 2 * k1)
        k3 = rate(s + step / 2 * k2)
        k4 = rate(s + step * k3)
        return s + step / 6 * (k1 + 2 * k2 + 2 * k3 + k4), s

    return jax.lax.scan(advance, jnp.asarray(SUBSTRATE), length=len(TIMES))[1]


def signal(params: Params) -> jax.Array:
    return params["gain"] * substrate(params)


def draw_start(key: jax.Array) -> Params:
    """Each parameter off by a factor of 2 to 5, up or down."""
    size_key, direction_key = jax.random.split(key)
    sizes = jax.random.uniform(size_key, len(TRUTH), minval=jnp.log(2), maxval=jnp.log(5))
    factors = jnp.exp(sizes * jax.random.rademacher(direction_key, len(TRUTH)))
    return {name: TRUTH[name] * factor for name, factor in zip(TRUTH, factors, strict=True)}


def closed_form(params: Params) -> np.ndarray:
    """S at TIMES by Lambert's function (Schnell & Mendoza 1997)."""
    argument = SUBSTRATE - params["Vmax"] * TIMES
    return params["Km"] * np.real(
        scipy.special.lambertw(SUBSTRATE / params["Km"] * np.exp(argument / params["Km"]))
    )


def mean_square(residuals: Residuals, params: Params) -> jax.Array:
    return jnp.mean(residuals(params) ** 2)


def fit(
    make: Callable[[Params], Method],
    in_units: bool,
    residuals: Residuals,
    start: Params,
    evaluations: int,
) -> jax.Array:
    """The mean square residual after each evaluation."""
    units = start if in_units else jax.tree.map(jnp.ones_like, start)

    def of_fitted(fitted: Params) -> jax.Array:
        return residuals(jax.tree.map(jnp.multiply, fitted, units))

    fitted = jax.tree.map(jnp.divide, start, units)
    method = make(fitted)
    if isinstance(method, optax.GradientTransformation):
        return follow_optax(method, of_fitted, fitted, evaluations)
    return follow_optimistix(method, of_fitted, fitted, evaluations)


def follow_optax(optimizer, residuals, start, evaluations):
    optimizer = optax.with_extra_args_support(optimizer)

    def step(carry, _):
        params, opt_state = carry
        value, gradient = jax.value_and_grad(mean_square, argnums=1)(residuals, params)
        updates, opt_state = optimizer.update(gradient, opt_state, params, value=value)
        return (optax.apply_updates(params, updates), opt_state), value

    return jax.lax.scan(step, (start, optimizer.init(start)), length=evaluations)[1]


def follow_optimistix(solver, residuals, start, evaluations):
    """Each step of a solver is one evaluation: at the point that the step before proposed."""
    sum_of_squares = isinstance(solver, optimistix.AbstractLeastSquaresSolver)

    def objective(params, _):
        return residuals(params) if sum_of_squares else mean_square(residuals, params), None

    shape, _ = jax.eval_shape(objective, start, None)
    state = solver.init(objective, start, None, {}, shape, None, frozenset())
    arrays, others = eqx.partition(state, eqx.is_array)

    def step(carry, _):
        params, arrays = carry
        state = eqx.combine(arrays, others)
        params, state, _ = solver.step(objective, params, None, {}, state, frozenset())
        return (params, eqx.filter(state, eqx.is_array)), mean_square(residuals, params)

    return jax.lax.scan(step, (start, arrays), length=evaluations)[1]


def rprop_in_proportion(start: Params) -> Method:
    """First steps of a tenth of each parameter, and none larger than the parameter."""
    first = jax.tree.map(lambda parameter: parameter / 10, start)
    return optax_rprop.irprop_plus(first, min_step_size=1e-12, max_step_size=start)


def rprop_from_one_step(start: Params) -> Method:
    return optax_rprop.irprop_plus(1e-5, min_step_size=1e-12, max_step_size=1e6)


def adam(learning_rate: float) -> Callable[[Params], Method]:
    return lambda start: optax.adam(learning_rate)


def bfgs(start: Params) -> Method:
    return optimistix.BFGS(rtol=1e-12, atol=1e-12)


def levenberg_marquardt(start: Params) -> Method:
    return optimistix.LevenbergMarquardt(rtol=1e-12, atol=1e-12)


IN_PROPORTION = "irprop_plus, first steps start/10"
# What is fitted: the parameters in units of their starts or not, and the methods.
FITS = {
    "the parameters as they are": (
        False,
        {
            IN_PROPORTION: rprop_in_proportion,
            "irprop_plus, first step 1e-5": rprop_from_one_step,
            "adam at 0.001": adam(1e-3),
            "adam at 0.1": adam(0.1),
            "adam at 1": adam(1.0),
            "adam at 10": adam(10.0),
            "BFGS": bfgs,
            "LevenbergMarquardt": levenberg_marquardt,
        },
    ),
    "in units of their starts": (
        True,
        {
            IN_PROPORTION: rprop_in_proportion,
            "adam at 0.03": adam(0.03),
            "adam at 0.1": adam(0.1),
            "adam at 0.3": adam(0.3),
            "BFGS": bfgs,
            "LevenbergMarquardt": levenberg_marquardt,
        },
    ),
}
METHOD_COLORS = {
    "irprop_plus": COLORS["irprop_plus"],
    "adam": COLORS["adam"],
    "BFGS": COLORS["lbfgs"],
    "LevenbergMarquardt": COLORS["scipy"],
}


def draw(
    observed: jax.Array, starts: Params, arrived: dict[str, dict[str, np.ndarray]], path: Path
) -> None:
    """The data and what the starts predict; then how many starts have arrived."""
    figure, (data, *panels) = plt.subplots(1, 3, figsize=(10.5, 3.8))
    kilo = 1e-3
    some = jax.tree.map(lambda parameter: parameter[:12], starts)
    data.plot(kilo * TIMES, kilo * jax.vmap(signal)(some).T, color="0.8", lw=0.8)
    data.plot(kilo * TIMES, kilo * observed, ".", ms=4, color="0.4")
    data.plot(kilo * TIMES, kilo * signal(TRUTH), color="black", lw=1)
    data.set(
        title="measured, the truth, and starts (light)",
        xlabel="time (1000 s)",
        ylabel="signal (1000 counts)",
        ylim=(-10, 450),
    )
    for panel, (fitted, of_methods) in zip(panels, arrived.items(), strict=True):
        lines = {name: iter(("-", "--", ":", "-.")) for name in METHOD_COLORS}
        for name, has_arrived in of_methods.items():
            kind = name.split(",")[0].split()[0]
            evaluations = np.arange(1, len(has_arrived[0]) + 1)
            share = 100 * np.mean(has_arrived, axis=0)
            style = {"color": METHOD_COLORS[kind], "ls": next(lines[kind])}
            panel.semilogx(evaluations, share, label=name, **style)
        panel.set(title=fitted, xlabel="evaluations", ylabel="starts arrived (%)", xlim=(3, None))
        # Room above the curves, for the legend.
        panel.set(ylim=(-4, 185), yticks=range(0, 101, 20))
        panel.legend(loc="upper left", fontsize="small")
    figure.suptitle(
        "As they are, Rprop arrives from most starts and LevenbergMarquardt soonest; "
        "rescaled, LevenbergMarquardt wins"
    )
    save(figure, path)


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    options = parser(__doc__, "parameter_fit")
    options.add_argument("--starts", type=positive, default=50, help="how many")
    options.add_argument("--evaluations", type=positive, default=1000, help="for each fit")
    options = options.parse_args(arguments)
    noise_key, start_key = jax.random.split(jax.random.key(options.seed))
    observed = signal(TRUTH) + NOISE * jax.random.normal(noise_key, len(TIMES))
    starts = jax.vmap(draw_start)(jax.random.split(start_key, options.starts))

    def residuals(params):
        return (signal(params) - observed) / NOISE

    floor = float(mean_square(residuals, TRUTH))
    error = float(np.max(np.abs(substrate(TRUTH) - closed_form(TRUTH))))
    print(f"The integration differs from the closed form by at most {error:.0e} uM.")
    print(f"Arrived: a mean square residual of at most {floor:.4f}, that of the truth.")
    figures: dict[str, Any] = {"integration_error": error, "fits": {}}
    arrived: dict[str, dict[str, np.ndarray]] = {}
    for fitted, (in_units, methods) in FITS.items():
        arrived[fitted], figures["fits"][fitted] = {}, {}
        print(f"\n{fitted:40}{f'of {options.starts} starts':>14}{'half arrived after':>24}")
        for name, make in tqdm(methods.items(), leave=False):
            run = functools.partial(fit, make, in_units, residuals, evaluations=options.evaluations)
            losses = np.asarray(jax.jit(jax.vmap(run))(starts))
            has_arrived = np.logical_or.accumulate(losses <= floor, axis=1)
            arrived[fitted][name] = has_arrived
            count = int(np.sum(has_arrived[:, -1]))
            before = int(np.sum(np.mean(has_arrived, axis=0) < 0.5))
            half = before + 1 if before < options.evaluations else None
            tqdm.write(f"{name:40}{count:14}{half or '-':>24}")
            figures["fits"][fitted][name] = {"arrived": count, "half": half}
    if options.plot:
        draw(observed, starts, arrived, options.plot)
    return figures


if __name__ == "__main__":
    main()
