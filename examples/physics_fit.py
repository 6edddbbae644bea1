"""A physics fit: a step size and a bound for each parameter
=========================================================

An enzyme consumes its substrate, dS/dt = -Vmax S / (Km + S), and a detector counts gain * S. Vmax
is 5e-4, Km 30 and the gain 2000; each fit starts off by a factor of 2 to 5 in all three. No one
learning rate serves them. Rprop takes a tree of first steps and a tree of lower bounds, both a
tenth of the start.
"""

import functools
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

random = np.random.default_rng(0)
measured = signal(TRUTH) + 2e3 * random.normal(size=len(TIMES))
starts = {
    name: true * random.uniform(2, 5, STARTS) ** random.choice([-1, 1], STARTS)
    for name, true in TRUTH.items()
}


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

        optimizer = make(start, jax.tree.map(lambda parameter: parameter / 10, start))
        return jax.lax.scan(step, (start, optimizer.init(start)), length=EVALUATIONS)[1]

    arrived = np.asarray(jax.jit(jax.vmap(fit))(starts)) <= loss(TRUTH)
    return np.where(arrived.any(axis=1), arrived.argmax(axis=1) + 1, np.inf)


rprop = functools.partial(optax_rprop.irprop_minus, min_step_size=1e-12, max_step_size=1e4)
fits = {
    "irprop_minus, steps and bounds": arrivals(lambda start, tenth: rprop(tenth, lower=tenth)),
    "irprop_minus, steps": arrivals(lambda start, tenth: rprop(tenth)),
    "irprop_minus, one first step of 1e-5": arrivals(lambda start, tenth: rprop(1e-5)),
    "adam(0.001)": arrivals(lambda start, tenth: optax.adam(1e-3)),
    "adam(0.1)": arrivals(lambda start, tenth: optax.adam(0.1)),
    "adam(10)": arrivals(lambda start, tenth: optax.adam(10.0)),
}


# %%
# Where the loss is a small sum of squares and its parameters are rescaled, Levenberg-Marquardt
# arrives sooner.
def levenberg_marquardt(start):
    def fn(scaled, args):
        return residuals(jax.tree.map(jnp.multiply, scaled, start))

    ones = jax.tree.map(jnp.ones_like, start)
    solver = optimistix.LevenbergMarquardt(rtol=1e-6, atol=1e-6)
    found = optimistix.least_squares(fn, solver, ones, max_steps=EVALUATIONS, throw=False)
    arrived = jnp.mean(fn(found.value, None) ** 2) <= loss(TRUTH)
    return jnp.where(arrived, found.stats["num_steps"], jnp.inf)


fits["Levenberg-Marquardt, rescaled"] = jax.vmap(levenberg_marquardt)(starts)

# %%
figure, axes = plt.subplots(figsize=(9, 4.2), layout="constrained")
print(f"{'':36}starts arrived   half of them after")
claims = (0.9, 1), (0.5, 0.8), (0, 0.5), (0, 0), (0, 0), (0, 0), (0.9, 1)
for (name, evaluations), (least, most) in zip(fits.items(), claims, strict=True):
    share = np.mean(evaluations[:, None] <= np.arange(EVALUATIONS + 1), axis=0)
    print(f"{name:36}{share[-1] * STARTS:8g} of {STARTS}{np.argmax(share >= 0.5) or '-':>21}")
    assert least <= share[-1] <= most
    axes.semilogx(share, lw=2, label=name)
axes.set(xlabel="evaluations", ylabel="share of starts that arrived", xlim=(3, EVALUATIONS))
figure.legend(loc="outside right center")
Path("figures").mkdir(exist_ok=True)
figure.savefig("figures/physics_fit.png")
