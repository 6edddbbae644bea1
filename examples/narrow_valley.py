"""Narrow valleys
==============

Through Rosenbrock's valley, Rprop takes 3,931 steps, with momentum 205, with L-BFGS 48.

Rprop sees each weight alone. Where the valley lies across the axes, a weight soon steps over its
floor, and its step size is halved: the steps stay small. ``rprop_momentum`` also moves along the
average of its past moves. ``rprop_lbfgs`` learns the valley's shape from its first Rprop steps.
"""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

import optax_rprop

jax.config.update("jax_enable_x64", True)
STEPS = 20_000
OPTIMIZERS = {
    "irprop_minus": optax_rprop.irprop_minus(min_step_size=0),  # the default limit is too large
    "rprop_momentum": optax_rprop.rprop_momentum(),
    "rprop_lbfgs": optax_rprop.rprop_lbfgs(),
}


@functools.partial(jax.jit, static_argnums=(0, 1))
def path(optimizer, loss, start, *given):
    """Where x is before each step."""

    def step(carry, _):
        x, opt_state = carry
        updates, opt_state = optimizer.update(jax.grad(loss)(x, *given), opt_state, x)
        return (optax.apply_updates(x, updates), opt_state), x

    return jax.lax.scan(step, (start, optimizer.init(start)), length=STEPS)[1]


def arrive(optimizer, loss, start, *given):
    """How many steps come within 0.001 of the minimum, where all is 1, and the points."""
    points = np.array(path(optimizer, loss, start, *given))
    near = np.abs(points - 1).max(axis=1) < 1e-3
    return int(np.argmax(near)) if near.any() else STEPS, points


# %%
# Quadratics in ten dimensions, rotated at random: the condition is the square of how many times
# longer than wide the valley is.
rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(10, 10)))[0]


def quadratic(x, curvatures):
    return jnp.sum(curvatures * (rotation @ (x - 1)) ** 2)


print(f"{'steps to 0.001, condition':26}" + "".join(f"{name:>16}" for name in OPTIMIZERS))
for condition in (1, 100, 10_000):
    given = quadratic, jnp.zeros(10), np.geomspace(1, condition, 10)
    steps = [arrive(optimizer, *given)[0] for optimizer in OPTIMIZERS.values()]
    print(f"{condition:26,}" + "".join(f"{count:16,}" for count in steps))
assert steps[2] < steps[1] < steps[0]


# %%
# Rosenbrock's bent valley.
def rosenbrock(x):
    return (1 - x[0]) ** 2 + 100 * (x[1] - x[0] ** 2) ** 2


figure, valleys = plt.subplots(3, 1, figsize=(7, 9), layout="constrained")
xs, ys = np.meshgrid(np.linspace(-1.5, 1.5, 400), np.linspace(-0.3, 1.4, 300))
levels, arrivals = np.geomspace(0.05, 1500, 16), []
for valley, (name, optimizer) in zip(valleys, OPTIMIZERS.items(), strict=True):
    count, points = arrive(optimizer, rosenbrock, jnp.array([-1.2, 1.0]))
    arrivals.append(count)
    print(f"Rosenbrock: {name:16} is within 0.001 of the minimum after {count:5,} steps")
    valley.contourf(xs, ys, rosenbrock((xs, ys)), levels, norm="log", cmap="Blues", extend="both")
    valley.plot(*points[: min(count, 200) + 1].T, "o-", color="tab:red", ms=3, lw=1)
    valley.plot(1, 1, "k*", ms=14)
    valley.set(xlim=(-1.5, 1.5), ylim=(-0.3, 1.4))
    valley.set_title(f"{name}: {min(count, 200)} steps of {count:,} to the star")
assert 20 * arrivals[2] < 10 * arrivals[1] < arrivals[0]
Path("figures").mkdir(exist_ok=True)
figure.savefig("figures/narrow_valley.png")
print("Plot: figures/narrow_valley.png")
