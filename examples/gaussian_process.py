"""Hyperparameters of a Gaussian process: what Rprop is often chosen for.

A Gaussian process with a squared-exponential kernel, one lengthscale per input (ARD),
on scikit-learn's bundled diabetes data (442 patients, 10 inputs; Efron, Hastie,
Johnstone & Tibshirani 2004). Its 12 hyperparameters, in logarithms, minimize the
negative log marginal likelihood (Rasmussen & Williams 2006, equation 2.30). Every
evaluation costs a Cholesky factorization, and the gradient is exact. Blum & Riedmiller
(2013) report that Rprop converged there sooner and more reliably than more elaborate
methods; the libraries libgp and limbo use it.

Here iRprop+ meets Adam, optax.lbfgs and scikit-learn's own fit (SciPy's L-BFGS-B with
scikit-learn's kernels). What counts is the evaluations of likelihood and gradient,
those within line searches too. Two starts, for the second of which L-BFGS is ahead at
first; then the error on a fifth of the patients, held out from a fit of its own.

A Cholesky factorization can fail, and value and gradient are then NaN. irprop_plus with
undo_nonfinite=True takes that step back; the last lines show the difference.

Run: python examples/gaussian_process.py
"""

import functools
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import scipy.optimize
from _common import COLORS, parser, plt, positive, save
from sklearn.datasets import load_diabetes
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
from sklearn.model_selection import train_test_split
from threadpoolctl import threadpool_limits
from tqdm import tqdm

import optax_rprop

jax.config.update("jax_enable_x64", True)


class Data(NamedTuple):
    """Inputs, one row a patient, and targets; both standardized."""

    inputs: np.ndarray
    targets: np.ndarray


class Start(NamedTuple):
    """The hyperparameters before a fit; all lengthscales are equal."""

    lengthscale: float = 1.0
    amplitude: float = 1.0
    noise: float = 1.0


class Fit(NamedTuple):
    """What each evaluation gave, and the hyperparameters of the lowest."""

    values: np.ndarray
    params: dict[str, Any]

    @property
    def lowest(self) -> np.ndarray:
        """The lowest value so far, after each evaluation."""
        return np.fmin.accumulate(self.values)


STARTS = {
    "all hyperparameters from 1": Start(),
    "lengthscales from 3, noise from 0.3": Start(lengthscale=3.0, noise=0.3),
}


def covariance(params: dict[str, jax.Array], first: jax.Array, second: jax.Array) -> jax.Array:
    """The kernel between all rows of two input arrays."""
    difference = (first[:, None] - second) / jnp.exp(params["log_lengthscales"])
    return jnp.exp(2 * params["log_amplitude"] - 0.5 * jnp.sum(difference**2, axis=-1))


def factorize(params: dict[str, jax.Array], inputs: jax.Array) -> jax.Array:
    """The Cholesky factor of the targets' covariance."""
    noise = jnp.exp(2 * params["log_noise"]) * jnp.eye(len(inputs))
    return jnp.linalg.cholesky(covariance(params, inputs, inputs) + noise)


def negative_log_likelihood(params: dict[str, jax.Array], data: Data) -> jax.Array:
    factor = factorize(params, data.inputs)
    whitened = jax.scipy.linalg.solve_triangular(factor, data.targets, lower=True)
    log_determinant = 2 * jnp.sum(jnp.log(jnp.diag(factor)))
    size = len(data.targets)
    return 0.5 * (whitened @ whitened + log_determinant + size * jnp.log(2 * jnp.pi))


def predict(params: dict[str, jax.Array], data: Data, inputs: jax.Array) -> jax.Array:
    """The posterior mean at new inputs."""
    factor = factorize(params, data.inputs)
    weights = jax.scipy.linalg.cho_solve((factor, True), data.targets)
    return covariance(params, inputs, data.inputs) @ weights


def start_params(start: Start, data: Data) -> dict[str, jax.Array]:
    return {
        "log_lengthscales": jnp.full(data.inputs.shape[1], jnp.log(start.lengthscale)),
        "log_amplitude": jnp.log(start.amplitude),
        "log_noise": jnp.log(start.noise),
    }


value_and_grad = jax.jit(jax.value_and_grad(negative_log_likelihood))


def fit_by_steps(
    optimizer: optax.GradientTransformation, data: Data, start: Start, evaluations: int
) -> Fit:
    """One evaluation a step: Rprop and Adam."""
    optimizer = optax.with_extra_args_support(optimizer)
    params = start_params(start, data)
    opt_state = optimizer.init(params)
    update = jax.jit(optimizer.update)
    visited = []
    for _ in range(evaluations):
        value, gradient = value_and_grad(params, data)
        visited.append((float(value), params))
        updates, opt_state = update(gradient, opt_state, params, value=value)
        params = optax.apply_updates(params, updates)
    return best_of(visited)


def fit_by_lbfgs(data: Data, start: Start, evaluations: int) -> Fit:
    """optax.lbfgs, whose line search evaluates as often as it likes."""
    optimizer = optax.lbfgs()

    def objective(params):
        return negative_log_likelihood(params, data)

    @jax.jit
    def step(params, opt_state):
        value, gradient = optax.value_and_grad_from_state(objective)(params, state=opt_state)
        updates, opt_state = optimizer.update(
            gradient, opt_state, params, value=value, grad=gradient, value_fn=objective
        )
        return optax.apply_updates(params, updates), opt_state, value

    params = start_params(start, data)
    opt_state = optimizer.init(params)
    visited = []
    while len(visited) < evaluations:
        before = params
        params, opt_state, value = step(params, opt_state)
        searched = int(optax.tree.get(opt_state, "info").num_linesearch_steps)
        # While it searches, the best point remains the one that it set out from.
        visited += [(float(value), before)] * searched
    return best_of(visited[:evaluations])


def fit_by_sklearn(data: Data, start: Start, evaluations: int) -> Fit:
    """scikit-learn's kernels and its default optimizer, with every evaluation recorded."""
    visited = []

    def minimize(objective, theta, bounds):
        def recorded(theta):
            value, gradient = objective(theta)
            names = "log_amplitude", "log_lengthscales", "log_noise"
            # scikit-learn's theta holds the logarithms of variances.
            values = theta[0] / 2, theta[1:-1].copy(), theta[-1] / 2
            visited.append((value, dict(zip(names, values, strict=True))))
            return value, gradient

        budget = {"maxfun": evaluations}
        found = scipy.optimize.minimize(
            recorded, theta, method="L-BFGS-B", jac=True, bounds=bounds, options=budget
        )
        return found.x, found.fun

    lengthscales = RBF(np.full(data.inputs.shape[1], start.lengthscale))
    kernel = ConstantKernel(start.amplitude**2) * lengthscales + WhiteKernel(start.noise**2)
    with warnings.catch_warnings():
        # The lengthscale of an input that does not matter ends at its upper bound.
        warnings.simplefilter("ignore", ConvergenceWarning)
        GaussianProcessRegressor(kernel, alpha=0.0, optimizer=minimize).fit(*data)
    # Where it stopped early, it stays.
    visited += [visited[-1]] * (evaluations - len(visited))
    return best_of(visited[:evaluations])


def best_of(visited: list[tuple[float, dict[str, Any]]]) -> Fit:
    values = np.array([value for value, _ in visited])
    return Fit(values, visited[np.nanargmin(values)][1])


def by_steps(optimizer: optax.GradientTransformation) -> Callable[[Data, Start, int], Fit]:
    return functools.partial(fit_by_steps, optimizer)


IRPROP_PLUS = optax_rprop.irprop_plus(0.1, undo_nonfinite=True)
# How to fit, and how to draw.
METHODS = {
    "irprop_plus from 0.1": (by_steps(IRPROP_PLUS), {"color": COLORS["irprop_plus"], "lw": 2.5}),
    "adam at 0.1": (by_steps(optax.adam(0.1)), {"color": COLORS["adam"], "ls": ":"}),
    "adam at 0.3": (by_steps(optax.adam(0.3)), {"color": COLORS["adam"]}),
    "adam at 1": (by_steps(optax.adam(1.0)), {"color": COLORS["adam"], "ls": "--"}),
    "optax.lbfgs": (fit_by_lbfgs, {"color": COLORS["lbfgs"]}),
    "scikit-learn": (fit_by_sklearn, {"color": COLORS["scipy"]}),
}


def fit_all(data: Data, start: Start, evaluations: int) -> dict[str, Fit]:
    return {
        name: fit(data, start, evaluations)
        for name, (fit, _) in tqdm(METHODS.items(), desc="fits", leave=False)
    }


def standardize(values: np.ndarray, reference: np.ndarray) -> np.ndarray:
    return (values - reference.mean(axis=0)) / reference.std(axis=0)


def held_out_errors(
    inputs: np.ndarray, targets: np.ndarray, seed: int, evaluations: int
) -> dict[str, float]:
    """Root mean squared errors on a fifth of the rows, in the targets' units."""
    train, test = train_test_split(np.arange(len(targets)), test_size=0.2, random_state=seed)
    unit = targets[train].std()
    inputs, targets = standardize(inputs, inputs[train]), standardize(targets, targets[train])
    data = Data(inputs[train], targets[train])
    predictions = {
        name: predict(fit.params, data, inputs[test])
        for name, fit in fit_all(data, Start(), evaluations).items()
    }
    predictions["the others' mean"] = np.zeros(len(test))
    return {
        name: float(unit * np.sqrt(np.mean((predicted - targets[test]) ** 2)))
        for name, predicted in predictions.items()
    }


def draw(fits: dict[str, dict[str, Fit]], least: float, path: Path) -> None:
    figure, panels = plt.subplots(1, len(fits), figsize=(10.5, 4), sharey=True)
    for panel, (start, of_start) in zip(panels, fits.items(), strict=True):
        for name, fit in of_start.items():
            evaluations = np.arange(1, len(fit.values) + 1)
            panel.semilogy(evaluations, fit.lowest - least, label=name, **METHODS[name][1])
        panel.set(title=start, xlabel="evaluations of likelihood and gradient", ylim=(1e-3, 1e3))
    panels[0].set_ylabel("negative log likelihood\nabove the lowest found")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right center")
    figure.suptitle("Rprop fits a Gaussian process as fast as L-BFGS does, without a line search")
    save(figure, path)


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    options = parser(__doc__, "gaussian_process")
    options.add_argument("--evaluations", type=positive, default=40, help="for each fit")
    options = options.parse_args(arguments)
    # On matrices this small the threads of a BLAS only wait for each other.
    threadpool_limits(1)
    inputs, targets = load_diabetes(return_X_y=True)
    data = Data(standardize(inputs, inputs), standardize(targets, targets))
    fits = {name: fit_all(data, start, options.evaluations) for name, start in STARTS.items()}
    least = min(fit.lowest[-1] for of_start in fits.values() for fit in of_start.values())
    checkpoints = [count for count in (1, 10, 20, 30, 40) if count <= options.evaluations]

    figures: dict[str, Any] = {"least": least, "fits": {}, "failing": {}}
    for start, of_start in fits.items():
        print(f"\nNegative log likelihood after that many evaluations; {start}")
        print(f"{'':22}" + "".join(f"{count:>10}" for count in checkpoints) + "  within 0.01 after")
        for name, fit in of_start.items():
            far = int(np.sum(fit.lowest > least + 0.01))
            near = far + 1 if far < options.evaluations else None
            after = {count: float(fit.lowest[count - 1]) for count in checkpoints}
            print(
                f"{name:22}" + "".join(f"{x:10.3f}" for x in after.values()) + f"{near or '-':>19}"
            )
            figures["fits"].setdefault(start, {})[name] = {"after": after, "near": near}

    figures["errors"] = held_out_errors(inputs, targets, options.seed, options.evaluations)
    print("\nRoot mean squared error on the patients held out (disease progression score)")
    for name, error in figures["errors"].items():
        print(f"{name:22}{error:10.2f}")

    print("\nirprop_plus from an amplitude of 0.1, with a first step of 10")
    for undo in (False, True):
        optimizer = optax_rprop.irprop_plus(10.0, undo_nonfinite=undo)
        fit = fit_by_steps(optimizer, data, Start(amplitude=0.1), options.evaluations)
        failed, lowest = int(np.sum(np.isnan(fit.values))), float(fit.lowest[-1])
        print(f"undo_nonfinite={undo!s:6}{failed:3} evaluations failed, lowest {lowest:.3f}")
        figures["failing"][str(undo)] = {"failed": failed, "lowest": lowest}
    if options.plot:
        draw(fits, least, options.plot)
    return figures


if __name__ == "__main__":
    main()
