"""One weight on a parabola
========================

Fifty steps of Rprop on x² show how a step size grows and shrinks.

It grows by 1.2 while the slope keeps its sign, and is halved when x has jumped over the minimum.
The same rule as a loop of plain Python gives the same 50 steps, to the last bit.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

import optax_rprop

jax.config.update("jax_enable_x64", True)  # as Python's numbers

optimizer = optax_rprop.rprop(0.1)
x = jnp.array(5.0)
opt_state = optimizer.init(x)
path = [(5.0, 0.1)]
print("step            x   step size")
for step in range(1, 51):
    gradient = jax.grad(lambda x: x**2)(x)
    update, opt_state = optimizer.update(gradient, opt_state)
    x = optax.apply_updates(x, update)
    path.append((float(x), float(optax_rprop.step_sizes(opt_state))))
    print(f"{step:4} {path[-1][0]:12.9f} {path[-1][1]:11.9f}")

# %%
# The rule by itself: iRprop- of Igel and Hüsken (2003).
x, step_size, remembered = 5.0, 0.1, 0
for from_optimizer in path[1:]:
    sign = np.sign(2 * x)
    if sign * remembered > 0:
        step_size *= 1.2
    elif sign * remembered < 0:
        step_size *= 0.5
        sign = 0  # x stays, and the next step has no sign to compare with
    x -= sign * step_size
    remembered = sign
    assert from_optimizer == (x, step_size)
assert abs(x) < 1e-3

# %%
figure, (places, sizes) = plt.subplots(2, 1, figsize=(7, 5.5), sharex=True, layout="constrained")
xs, step_sizes = np.transpose(path)
places.axhline(0, color="black", lw=0.8)
places.plot(xs, "o-", ms=3, color="tab:red")
places.set(ylabel="x", title="x jumps over the minimum, and the step size is halved")
sizes.semilogy(step_sizes, color="lightgray")
factor = step_sizes / np.append(0.1, step_sizes[:-1])
for kind, marker, color, label in (
    (factor > 1, "^", "tab:green", "times 1.2: the slope kept its sign"),
    (factor < 1, "v", "tab:red", "times 0.5: it changed, and x stays"),
    (factor == 1, "o", "tab:gray", "unchanged: at first, and after each halving"),
):
    sizes.semilogy(np.flatnonzero(kind), step_sizes[kind], marker, ms=5, color=color, label=label)
sizes.set(xlabel="step", ylabel="step size, in units of x")
sizes.legend()
Path("figures").mkdir(exist_ok=True)
figure.savefig("figures/parabola.png")
print("Plot: figures/parabola.png")
