"""Bounds and domain errors
========================

Three functions of one variable show how ``rprop_lbfgs`` stays inside bounds and returns from a NaN.

``lower`` and ``upper`` keep parameters in a box: a step that would leave it is cut at the bound.
Where the loss or a gradient is not finite, ``rprop_lbfgs`` takes the step back to a part of it. The
published rules and ``rprop_momentum`` do that with ``undo_nonfinite=True``.
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
# A box whose edges are the bounds: nothing leaves it, and x finds the minimum inside.
def parabola(x):
    return (x - 0.3) ** 2


free = path(parabola, 20.0, optax_rprop.rprop_lbfgs())
boxed = path(parabola, 20.0, optax_rprop.rprop_lbfgs(lower=0.2, upper=20.0))
assert free.min() < 0.2 <= boxed.min()
assert abs(boxed[-1] - 0.3) < 1e-4


# %%
# The logarithm ends at 0. A long step leads beyond, where the loss is NaN but its derivative is
# finite: a published rule without ``undo_nonfinite`` walks on for ever.
def logarithm(x):
    return x - jnp.log(x)


lost = path(logarithm, 1.8, optax_rprop.irprop_minus(2.0))
undone = path(logarithm, 1.8, optax_rprop.irprop_minus(2.0, undo_nonfinite=True))
back = path(logarithm, 30.0, optax_rprop.rprop_lbfgs())
assert lost[-1] < -50
assert undone[1] < 0 < undone[2] == undone[0]
assert max(abs(undone[-1] - 1), abs(back[-1] - 1)) < 1e-4


# %%
# Both at once: the bound is the edge of the domain, where the loss is NaN. The step that was cut
# there is taken back like any other.
def entropy(x):
    return x * jnp.log(x) + 0.9 * x


stuck = path(entropy, 1.0, optax_rprop.irprop_minus(0.3, lower=0.0))
inside = path(entropy, 1.0, optax_rprop.rprop_lbfgs(lower=0.0))
assert stuck[-1] == 0
assert abs(inside[-1] - np.exp(-1.9)) < 1e-4

# %%
figure, panels = plt.subplots(3, 1, figsize=(6, 9), layout="constrained")
for panel, title, minimum, paths in (
    (panels[0], "(x - 0.3)²", 0.3, {"no bounds": free, "lower and upper": boxed}),
    (panels[1], "x - log x", 1, {"irprop_minus": lost, "undo_nonfinite=True": undone}),
    (panels[2], "x log x + 0.9 x", np.exp(-1.9), {"irprop_minus": stuck, "rprop_lbfgs": inside}),
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
