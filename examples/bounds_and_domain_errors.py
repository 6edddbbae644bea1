"""Bounds and domain errors
========================

Three functions of one variable show how Rprop stays inside bounds and returns from a NaN.

``lower`` and ``upper`` keep parameters in a box: a step that would leave it is cut at the bound.
``undo_nonfinite`` is for a domain whose edge you do not know: where the loss is NaN or infinite,
the whole step is taken back and the step size halved.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

import optax_rprop


def path(loss, start, optimizer):
    """Where x is before each of 60 steps."""

    def step(carry, _):
        x, opt_state = carry
        value, gradient = jax.value_and_grad(loss)(x)
        updates, opt_state = optimizer.update(gradient, opt_state, x, value=value)
        return (optax.apply_updates(x, updates), opt_state), x

    start = jnp.array(start)
    return np.array(jax.lax.scan(step, (start, optimizer.init(start)), length=60)[1])


# %%
# A box that is narrower than the first step: nothing leaves it, and x finds the minimum inside.
def parabola(x):
    return (x - 0.3) ** 2


free = path(parabola, 0.5, optax_rprop.irprop_minus(2.0))
boxed = path(parabola, 0.5, optax_rprop.irprop_minus(2.0, lower=0.0, upper=1.0))
assert 0 == boxed.min() < boxed.max() == 1
assert abs(boxed[-1] - 0.3) < 1e-4


# %%
# The logarithm ends at 0. The first step leads to -0.2, where the loss is NaN but its derivative is
# finite: without ``undo_nonfinite`` x walks on for ever.
def logarithm(x):
    return x - jnp.log(x)


lost = path(logarithm, 1.8, optax_rprop.irprop_plus(2.0))
undone = path(logarithm, 1.8, optax_rprop.irprop_plus(2.0, undo_nonfinite=True))
assert lost[-1] < -50
assert undone[1] < 0 < undone[2] == undone[0]
assert abs(undone[-1] - 1) < 1e-4


# %%
# Both at once: the bound is the edge of the domain, where the loss is NaN. The step that was cut
# there is taken back like any other.
def entropy(x):
    return x * jnp.log(x) + 0.9 * x


stuck = path(entropy, 1.0, optax_rprop.irprop_plus(0.3, lower=0.0))
back = path(entropy, 1.0, optax_rprop.irprop_plus(0.3, lower=0.0, undo_nonfinite=True))
assert stuck[-1] == back.min() == 0
assert abs(back[-1] - np.exp(-1.9)) < 1e-4

# %%
figure, panels = plt.subplots(3, 1, figsize=(6, 9), layout="constrained")
for panel, title, minimum, paths in (
    (panels[0], "(x - 0.3)²", 0.3, {"no option": free, "lower and upper": boxed}),
    (panels[1], "x - log x", 1, {"no option": lost, "undo_nonfinite": undone}),
    (panels[2], "x log x + 0.9 x", np.exp(-1.9), {"lower": stuck, "undo_nonfinite too": back}),
):
    panel.axhline(minimum, color="black", lw=0.8, ls=":")
    for (option, xs), color in zip(paths.items(), ("0.7", "tab:red"), strict=True):
        panel.plot(xs[:30], "o-", ms=3, color=color, label=option)
    panel.set(title=title, xlabel="step", ylabel="x")
    panel.legend()
panels[1].set_ylim(-3, 3)
Path("figures").mkdir(exist_ok=True)
figure.savefig("figures/bounds_and_domain_errors.png")
print("Plot: figures/bounds_and_domain_errors.png")
