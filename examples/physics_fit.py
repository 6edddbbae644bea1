"""A physics fit: a step size and a bound for each parameter
=========================================================

An enzyme turns over its substrate, dS/dt = -Vmax S / (Km + S), and a detector counts gain * S. Vmax
is 5e-4, Km 30 and the gain 2000; each fit starts off by a factor of 2 to 5 in all three. No one
learning rate serves them. Rprop takes a tree of first steps and a tree of lower bounds, both a
tenth of the start.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
import optimistix
import scipy.special

import optax_rprop

jax.config.update("jax_enable_x64", True)

EVALUATIONS, STARTS = 1000, 50
TRUTH = {"Vmax": 5e-4, "Km": 30.0, "gain": 2e3}
TIMES, TIME_STEP = np.linspace(0, 5e5, 200, retstep=True)


def signal(params):  # by Runge-Kutta steps of fourth order, from S = 100
    def rate(s):
        return -params["Vmax"] * s / (params["Km"] + s)

    def advance(s, _):
        k1 = rate(s)
        k2 = rate(s + TIME_STEP / 2 * k1)
        k3 = rate(s + TIME_STEP / 2 * k2)
        k4 = rate(s + TIME_STEP * k3)
        return s + TIME_STEP / 6 * (k1 + 2 * k2 + 2 * k3 + k4), s

    return params["gain"] * jax.lax.scan(advance, 100.0, length=len(TIMES))[1]


closed_form = scipy.special.lambertw(100 / 30 * np.exp((100 - 5e-4 * TIMES) / 30)).real
assert abs(signal(TRUTH) - 2e3 * 30 * closed_form).max() < 1e-3

noise, size, direction = jax.random.split(jax.random.key(0), 3)
measured = signal(TRUTH) + 2e3 * jax.random.normal(noise, len(TIMES))
sizes = jax.random.uniform(size, (3, STARTS), minval=np.log(2), maxval=np.log(5))
factors = jnp.exp(sizes * jax.random.rademacher(direction, (3, STARTS)))
starts = {name: TRUTH[name] * own for name, own in zip(TRUTH, factors, strict=True)}


def residuals(params):
    return (signal(params) - measured) / 2e3


def loss(params):
    return jnp.mean(residuals(params) ** 2)


# %%
# A fit has arrived when it describes the data as well as the truth does. All starts run at once.
def arrivals(make):
    """From each start, the evaluations until it has arrived."""

    def fit(start):
        def step(carry, _):
            params, opt_state = carry
            value, gradient = jax.value_and_grad(loss)(params)
            updates, opt_state = optimizer.update(gradient, opt_state, params)
            return (optax.apply_updates(params, updates), opt_state), value

        optimizer = make(start)
        return jax.lax.scan(step, (start, optimizer.init(start)), length=EVALUATIONS)[1]

    arrived = np.asarray(jax.jit(jax.vmap(fit))(starts)) <= loss(TRUTH)
    return np.where(arrived.any(axis=1), arrived.argmax(axis=1) + 1, np.inf)


limits = {"min_step_size": 1e-12, "max_step_size": 1e4}


def steps_and_bounds(start):
    tenth = jax.tree.map(lambda parameter: parameter / 10, start)
    return optax_rprop.irprop_minus(tenth, lower=tenth, **limits)


def steps(start):
    return optax_rprop.irprop_minus(jax.tree.map(lambda p: p / 10, start), **limits)


def one_step(start):
    return optax_rprop.irprop_minus(1e-5, **limits)


# %%
# Where the loss is a small sum of squares and its parameters are rescaled, Levenberg-Marquardt
# arrives sooner.
def levenberg_marquardt(start):
    found = optimistix.least_squares(
        lambda scaled, _: residuals(jax.tree.map(jnp.multiply, scaled, start)),
        optimistix.LevenbergMarquardt(rtol=1e-6, atol=1e-6),
        jax.tree.map(jnp.ones_like, start),
        max_steps=EVALUATIONS,
        throw=False,
    )
    arrived = loss(jax.tree.map(jnp.multiply, found.value, start)) <= loss(TRUTH)
    return jnp.where(arrived, found.stats["num_steps"], jnp.inf)


# %%
figure, axes = plt.subplots(figsize=(9, 4.2), layout="constrained")
print(f"{'':36}starts arrived   half of them after")
for name, evaluations, color, least, most in (
    ("irprop_minus, steps and bounds", arrivals(steps_and_bounds), "red", 0.9, 1),
    ("irprop_minus, steps", arrivals(steps), "orange", 0.5, 0.8),
    ("irprop_minus, one first step of 1e-5", arrivals(one_step), "pink", 0, 0.5),
    ("adam(0.001)", arrivals(lambda start: optax.adam(1e-3)), "blue", 0, 0),
    ("adam(0.1)", arrivals(lambda start: optax.adam(0.1)), "blue", 0, 0),
    ("adam(10)", arrivals(lambda start: optax.adam(10.0)), "blue", 0, 0),
    ("Levenberg-Marquardt, rescaled", jax.vmap(levenberg_marquardt)(starts), "gray", 0.9, 1),
):
    share = np.mean(evaluations[:, None] <= np.arange(EVALUATIONS + 1), axis=0)
    half = np.argmax(share >= 0.5) or "-"
    print(f"{name:36}{share[-1] * STARTS:8g} of {STARTS}{half:>21}")
    assert least <= share[-1] <= most
    axes.semilogx(share, color=f"tab:{color}", lw=2, label=name)
axes.set(xlabel="evaluations", ylabel="share of starts that arrived", xlim=(3, EVALUATIONS))
figure.legend(loc="outside right center")
Path("figures").mkdir(exist_ok=True)
figure.savefig("figures/physics_fit.png")
