"""When not to use it: mini-batches
================================

On mini-batches whose gradients sum to zero, every Rprop drifts away.

In Geoffrey Hinton's example (lecture 6e of "Neural networks for machine learning", 2012), nine
mini-batches give a weight the gradient +0.1 and the tenth gives -0.9. The weight should stay.
Rprop counts signs: it goes nine steps one way and one the other, and its steps grow. Momentum makes
that worse. RMSprop and Adam stay near. Give Rprop all the data in every step, or use one of those.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import optax

import optax_rprop

GRADIENTS = jnp.array(([0.1] * 9 + [-0.9]) * 20)
OPTIMIZERS = {
    "SGD": (optax.sgd, "tab:cyan", "-"),
    "Adam": (optax.adam, "tab:blue", "-"),
    "RMSprop": (optax.rmsprop, "tab:green", "-"),
    "rprop_momentum": (optax_rprop.rprop_momentum, "black", "-"),
    "rprop_minus": (optax_rprop.rprop_minus, "tab:pink", "-"),
    "rprop_plus": (optax_rprop.rprop_plus, "tab:brown", "-"),
    "irprop_plus": (optax_rprop.irprop_plus, "tab:orange", "--"),
    "irprop_minus": (optax_rprop.irprop_minus, "tab:red", "-"),
}

figure, axes = plt.subplots(figsize=(6, 5.4), layout="constrained")
print("The weight after 200 mini-batches, from 0, with a learning rate (first step size) of 0.1:")
for name, (make, color, style) in OPTIMIZERS.items():
    optimizer = optax.with_extra_args_support(make(0.1))

    @jax.jit
    def step(weight, opt_state, gradient, optimizer=optimizer):
        loss = gradient * weight  # the loss that has this gradient, for irprop_plus
        update, opt_state = optimizer.update(gradient, opt_state, weight, value=loss)
        return optax.apply_updates(weight, update), opt_state

    weight = jnp.zeros(())
    opt_state = optimizer.init(weight)
    path = [0.0]
    for gradient in GRADIENTS:
        weight, opt_state = step(weight, opt_state, gradient)
        path.append(float(weight))
    print(f"{name:14}{weight:11.4g}")
    axes.plot(path, style, color=color, label=f"{name}: {path[-1]:.2g}")
    if "rprop" in name:
        assert weight < -80
    elif name == "SGD":
        assert abs(weight) < 1e-6
    else:
        assert abs(weight) < 3  # a step of 0.1 by each gradient's sign would end at -16

axes.set_yscale("symlog", linthresh=1)
axes.set(xlabel="mini-batch", ylabel="weight (logarithmic beyond -1)")
axes.set_title("Nine gradients of +0.1 for one of -0.9: every Rprop drifts")
axes.set_yticks([0, -1, -1e3, -1e6, -1e9], ["0", "-1", "-1,000", "-1e6", "-1e9"])
figure.legend(title="after 200", loc="outside lower center", ncols=2)
Path("figures").mkdir(exist_ok=True)
figure.savefig("figures/when_not_to_use_it.png")
print("Plot: figures/when_not_to_use_it.png")
