"""The gradient's magnitude means nothing to Rprop, and everything to gradient descent.

A function and four copies of it, multiplied by 1e-30, 0.01, 100 and 1e30, are minimized from the
same start. All have their minimum in the same place. Gradient descent, whose learning rate suits
the original, hardly moves on the small copies and is thrown out of the large ones. Rprop reads
the gradient's sign alone, and takes the same path on all of them, to the last bit.

The idea: Riedmiller & Braun, "A direct adaptive method for faster backpropagation learning: the
RPROP algorithm" (ICNN 1993). The function, x^2 + 3 sin(x)^2, is not convex and has one minimum,
at 0: Karimi, Nutini & Schmidt (ECML 2016).

    python examples/scaling.py
"""

import math
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from _common import parser, plt, positive, save
from jax import lax

import optax_rprop

jax.config.update("jax_enable_x64", True)  # float32 ends at 3e38: too near to 1e30

SCALES = (1e-30, 1e-2, 1.0, 1e2, 1e30)
START = 4.0
OPTIMIZERS = {
    "sgd": optax.sgd(0.1),
    "irprop_minus": optax_rprop.irprop_minus(0.1),
    "irprop_plus": optax_rprop.irprop_plus(0.1),
    "rprop_plus": optax_rprop.rprop_plus(0.1),
    "rprop_minus": optax_rprop.rprop_minus(0.1),
}


def loss(x: jax.typing.ArrayLike, scale: jax.typing.ArrayLike) -> jax.Array:
    return scale * (x**2 + 3 * jnp.sin(x) ** 2)


def paths_of(optimizer: optax.GradientTransformation, steps: int) -> np.ndarray:
    """Where x is at the start and after each step, a row for each scale."""
    optimizer = optax.with_extra_args_support(optimizer)

    def path(scale):
        def step(carry, _):
            x, opt_state = carry
            value, gradient = jax.value_and_grad(loss)(x, scale)
            update, opt_state = optimizer.update(gradient, opt_state, x, value=value)
            return (optax.apply_updates(x, update), opt_state), x

        start = jnp.asarray(START)
        (end, _), xs = lax.scan(step, (start, optimizer.init(start)), length=steps)
        return jnp.append(xs, end)

    return np.asarray(jax.vmap(path)(jnp.array(SCALES)))


def finite(number: float) -> float | None:
    """The number, or None, which JSON has, for inf and NaN, which it has not."""
    return float(number) if math.isfinite(number) else None


def draw(paths: dict[str, np.ndarray], file: Path) -> None:
    figure, ((functions, slopes), (descent, rprop)) = plt.subplots(2, 2, figsize=(8.4, 5.8))
    figure.suptitle("Rprop takes the same path, whatever the function is multiplied by")
    colors = plt.get_cmap("viridis")(np.linspace(0, 0.85, len(SCALES)))
    labels = [rf"$\times$ {scale:g}" for scale in SCALES]

    x = np.linspace(-5, 5, 1000)  # an even number, for the slope at 0 has no logarithm
    for scale, color, label in list(zip(SCALES, colors, labels, strict=True))[1:-1]:
        slope = abs(jax.vmap(jax.grad(loss), (0, None))(x, scale))
        for axes, y in ((functions, loss(x, scale)), (slopes, slope)):
            axes.semilogy(x, y, color=color)
            axes.text(5.2, y[-1], label, color=color, va="center")
    functions.set(title="A function and two of its copies", ylabel="f(x)")
    slopes.set(title="Their gradients have the same signs", ylabel="|df/dx|")
    for axes in (functions, slopes):
        axes.set(xlabel="x", xlim=(-5, 6.5), xticks=range(-4, 5, 2))

    for xs, color, label in zip(paths["sgd"], colors, labels, strict=True):
        stays = abs(xs[-1]) <= START
        descent.plot(xs if stays else xs[:2], color=color)
        if stays:
            descent.text(len(xs), xs[-1], label, color=color, va="center", fontsize="small")
    thrown_out = " and ".join(labels[3:])
    descent.text(3, -3.8, f"{thrown_out}: gone at the first step", color=colors[-2])
    descent.set_title("Gradient descent: five paths")

    for xs, color, label, width in zip(
        paths["irprop_minus"], colors, labels, (9, 7, 5, 3, 1), strict=True
    ):
        rprop.plot(xs, color=color, lw=width, label=label)
    rprop.legend(loc="upper right", fontsize="small", labelspacing=0.3)
    rprop.set_title("irprop_minus: five paths, one upon another")
    for axes in (descent, rprop):
        axes.set(xlabel="step", ylabel="x", ylim=(-5, 5), xlim=(-1, 1.15 * len(xs)))
    save(figure, file)


def main(arguments: Sequence[str] | None = None) -> dict[str, dict]:
    made = parser(__doc__, "scaling")
    made.add_argument("--steps", type=positive, default=80, help="of each optimizer")
    given = made.parse_args(arguments)

    paths = {name: paths_of(optimizer, given.steps) for name, optimizer in OPTIMIZERS.items()}
    print(f"x after {given.steps} steps from {START:g}, by the factor that multiplies f:")
    print(" " * 14 + "".join(f"{scale:>12g}" for scale in SCALES))
    for name, xs in paths.items():
        print(f"{name:14}" + "".join(f"{end:12.2g}" for end in xs[:, -1]))
    # Over every step, not only the last.
    differences = {
        name: float(np.ptp(xs, axis=0).max()) for name, xs in paths.items() if name != "sgd"
    }
    print("\nThe largest distance at any step between the five paths of an optimizer:")
    for name, difference in differences.items():
        print(f"{name:14}{difference:12g}")
    if given.plot:
        draw(paths, given.plot)
    return {
        "ends": {
            name: {f"{scale:g}": finite(end) for scale, end in zip(SCALES, xs[:, -1], strict=True)}
            for name, xs in paths.items()
        },
        "differences": differences,
    }


if __name__ == "__main__":
    main()
