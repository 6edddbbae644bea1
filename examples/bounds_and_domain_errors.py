"""
Bounds and domain errors
========================

``lower`` and ``upper`` keep parameters in a box: a step that would leave it is cut at the bound.
``undo_nonfinite`` is for a domain whose edge nobody knows: where the loss is NaN or infinite, the
whole step is taken back and the step size halved. Three functions of one variable show both.
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

    @jax.jit
    def step(x, opt_state):
        value, gradient = jax.value_and_grad(loss)(x)
        update, opt_state = optimizer.update(gradient, opt_state, x, value=value)
        return optax.apply_updates(x, update), opt_state

    x = jnp.array(start)
    opt_state = optimizer.init(x)
    xs = []
    for _ in range(60):
        xs.append(float(x))
        x, opt_state = step(x, opt_state)
    return np.array(xs)


figure, panels = plt.subplots(1, 3, figsize=(12, 4), layout="constrained")


def show(panel, with_option, without, minimum, edges, title):
    panel.axhline(minimum, color="black", lw=0.8)
    for edge in edges:
        panel.axhline(edge, color="black", lw=0.8, ls=":")
    panel.plot(without, "o-", ms=3, color="0.7", label="without")
    panel.plot(with_option, "o-", ms=3, color="tab:red", label="with")
    panel.set(title=title, xlabel="step", ylabel="x")
    panel.legend()


# %%
# A box that is narrower than the first step. Nothing leaves it, and x finds the minimum inside.
def parabola(x):
    return (x - 0.3) ** 2


inside = path(parabola, 0.5, optax_rprop.irprop_minus(2.0, lower=0.0, upper=1.0))
free = path(parabola, 0.5, optax_rprop.irprop_minus(2.0))
assert inside.min() >= 0
assert inside.max() <= 1
assert abs(inside[-1] - 0.3) < 1e-4
show(panels[0], inside, free, 0.3, (0, 1), "(x - 0.3)², bounds 0 and 1")


# %%
# The logarithm ends at 0. The first step of 2 from 1.5 lands at -0.5, where the loss is NaN but its
# derivative is finite: without ``undo_nonfinite`` x walks on for ever.
def logarithm(x):
    return x - jnp.log(x)


undone = path(logarithm, 1.5, optax_rprop.irprop_plus(2.0, undo_nonfinite=True))
lost = path(logarithm, 1.5, optax_rprop.irprop_plus(2.0))
assert undone[1] == -0.5
assert undone[2] == 1.5
assert abs(undone[-1] - 1) < 1e-4
assert lost[-1] < -50
show(panels[1], undone, lost, 1, (0,), "x - log x, undo_nonfinite")
panels[1].set_ylim(-4, 4)


# %%
# Both at once: the bound is the edge of the domain, where x log x is NaN. The step that was cut
# there is taken back like any other.
def entropy(x):
    return x * jnp.log(x) + 0.9 * x


both = path(entropy, 1.0, optax_rprop.irprop_plus(0.3, lower=0.0, undo_nonfinite=True))
bound = path(entropy, 1.0, optax_rprop.irprop_plus(0.3, lower=0.0))
assert abs(both[-1] - np.exp(-1.9)) < 1e-4
assert bound[-1] == 0
show(panels[2], both, bound, np.exp(-1.9), (0,), "x log x + 0.9 x, bound 0 and undo_nonfinite")
Path("figures").mkdir(exist_ok=True)
figure.savefig("figures/bounds_and_domain_errors.png")
