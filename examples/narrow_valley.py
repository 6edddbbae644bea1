"""A narrow valley
===============

Momentum takes Rprop through a bent valley across the axes, in less than a tenth of the steps.

Rprop sees each weight alone. Where the valley lies across the axes, a weight soon steps over its
floor, and its step size is halved: the steps stay small. ``rprop_momentum`` also moves along the
average of its past moves, by a factor that is doubled where that leads downhill and halved where it
leads uphill.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

import optax_rprop

jax.config.update("jax_enable_x64", True)
START, MINIMUM = jnp.array([-1.2, 1.0]), jnp.ones(2)


def rosenbrock(x):
    return (1 - x[0]) ** 2 + 100 * (x[1] - x[0] ** 2) ** 2


def run(optimizer, steps):
    """The points and the states of a run, at the start and after each step."""

    def step(carry, _):
        x, opt_state = carry
        updates, after = optimizer.update(jax.grad(rosenbrock)(x), opt_state, x)
        return (optax.apply_updates(x, updates), after), (x, opt_state)

    return jax.lax.scan(step, (START, optimizer.init(START)), length=steps + 1)[1]


# %%
# Neither is tuned. The published rule gets a lower limit to its step sizes: the default would stop
# it before the end.
runs, arrivals = {}, {}
for name, optimizer in (
    ("irprop_minus", optax_rprop.irprop_minus(min_step_size=0)),
    ("rprop_momentum", optax_rprop.rprop_momentum()),
):
    runs[name], states = run(optimizer, 5000)
    arrivals[name] = int(np.argmax(np.abs(runs[name] - MINIMUM).max(axis=1) < 1e-3))
    print(f"{name:16} is within 0.001 of the minimum after {arrivals[name]:5,} steps")
steps = arrivals["rprop_momentum"]
factors = np.array(optax.tree.get(states, "factor"))[: steps + 1]
assert 0 < 10 * steps < arrivals["irprop_minus"]
assert factors.min() < 0.01 < 1 < factors.max()

# %%
shape = {"figsize": (7, 9), "height_ratios": (3, 3, 2), "layout": "constrained"}
figure, (*valleys, factor) = plt.subplots(3, 1, **shape)
xs, ys = np.meshgrid(np.linspace(-1.5, 1.5, 400), np.linspace(-0.3, 1.4, 300))
levels = np.geomspace(0.05, 1500, 16)
for valley, (name, points) in zip(valleys, runs.items(), strict=True):
    valley.contourf(xs, ys, rosenbrock((xs, ys)), levels, norm="log", cmap="Blues", extend="both")
    valley.plot(*np.array(points[: steps + 1]).T, "o-", color="tab:red", ms=3, lw=1)
    valley.plot(*MINIMUM, "k*", ms=14)
    valley.set_title(f"{name}: its first {steps} steps of {arrivals[name]:,} to the star")
factor.plot(factors, "tab:red", drawstyle="steps-post")
factor.set_yscale("log", base=2)
factor.set(xlabel="step", ylabel="factor of the momentum", xlim=(0, steps))
factor.set_title("doubled where the average leads downhill, halved where uphill")
Path("figures").mkdir(exist_ok=True)
figure.savefig("figures/narrow_valley.png")
print("Plot: figures/narrow_valley.png")
