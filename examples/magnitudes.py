"""The size of the gradient does not matter
========================================

Rprop takes the same path on a function and on copies of it, multiplied by 1e-30 to 1e30.

All start from the same point. Gradient descent has a learning rate that suits one of the five
functions. Rprop reads only the sign of the gradient, so every bit of its five paths is the same.
"""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

import optax_rprop

jax.config.update("jax_enable_x64", True)  # float32 ends at 3e38, too near to 1e30

SCALES = [1e-30, 0.01, 1, 100, 1e30]
STEPS = 80


def loss(x, scale):  # not convex, with one minimum, at 0
    return scale * (x**2 + 3 * jnp.sin(x) ** 2)


def path(optimizer, scale):
    """Where x is before each step, from 4."""
    optimizer = optax.with_extra_args_support(optimizer)

    def step(carry, _):
        x, opt_state = carry
        value, gradient = jax.value_and_grad(loss)(x, scale)
        update, opt_state = optimizer.update(gradient, opt_state, x, value=value)
        return (optax.apply_updates(x, update), opt_state), x

    start = jnp.array(4.0)
    return jax.lax.scan(step, (start, optimizer.init(start)), length=STEPS)[1]


# %%
# Each row is one optimizer on the five copies.
paths = {}
print("x at the end:       " + "".join(f"{scale:>12g}" for scale in SCALES))
for make in (
    optax.sgd,
    optax_rprop.irprop_minus,
    optax_rprop.irprop_plus,
    optax_rprop.rprop_plus,
    optax_rprop.rprop_minus,
):
    of_scales = np.array(jax.vmap(functools.partial(path, make(0.1)))(jnp.array(SCALES)))
    print(f"{make.__name__:20}" + "".join(f"{x:12.2g}" for x in of_scales[:, -1]))
    paths[make.__name__] = of_scales
    if make is not optax.sgd:
        assert np.all(of_scales == of_scales[0])  # every bit of every step
        assert abs(of_scales[0, -1]) < 5e-6  # a few times min_step_size
tiny, small, fits, large, _ = paths["sgd"]
assert np.all(tiny == 4), "steps of 1e-30 are lost to rounding"
assert small[-1] > 3
assert abs(fits[-1]) < 1e-6
assert abs(large[-1]) > 1e80

# %%
figure, panels = plt.subplots(2, 1, figsize=(6, 7.5), layout="constrained")
colors = plt.get_cmap("viridis")(np.linspace(0, 0.9, len(SCALES)))
for panel, name in zip(panels, ("sgd", "irprop_minus"), strict=True):
    for i, (xs, scale) in enumerate(zip(paths[name], SCALES, strict=True)):
        first_outside = np.argmax(~(abs(xs) < 5)) or STEPS
        panel.plot(xs[: first_outside + 1], color=colors[i], lw=9 - 2 * i, label=f"times {scale:g}")
    panel.set(xlabel="step", ylabel="x", ylim=(-5, 5), xlim=(-2, STEPS))
panels[0].set_title("Gradient descent: one of five arrives")
panels[0].text(4, -4.3, "times 100 and times 1e30: gone at the first step", color=colors[3])
panels[1].set_title("irprop_minus: five paths, one upon another")
panels[1].legend(title="the function")
Path("figures").mkdir(exist_ok=True)
figure.savefig("figures/magnitudes.png")
print("Plot: figures/magnitudes.png")
