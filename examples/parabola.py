"""The smallest example: x^2 from x = 5, one line for every step.

A first step size of 0.1 grows by 1.2 while the slope keeps its sign and is halved when x has
jumped over the minimum. The same rule, written out as a NumPy loop, gives the same trace to the
last bit. The rule is iRprop-: Igel & Huesken, "Empirical evaluation of the improved Rprop learning
algorithms" (2003). The factors are those of Riedmiller & Braun (1993).

    python examples/parabola.py
"""

from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from _common import COLORS, parser, plt, positive, save
from jax import lax

import optax_rprop

jax.config.update("jax_enable_x64", True)  # as NumPy's numbers

START = 5.0
LEARNING_RATE = 0.1
ETA_MINUS = 0.5
ETA_PLUS = 1.2
MIN_STEP_SIZE = 1e-6
MAX_STEP_SIZE = 50.0


def loss(x: jax.typing.ArrayLike) -> jax.typing.ArrayLike:
    return x**2


def trace(steps: int) -> np.ndarray:
    """Rows of x and its step size, at the start and after each step."""
    optimizer = optax_rprop.rprop(LEARNING_RATE, ETA_MINUS, ETA_PLUS, MIN_STEP_SIZE, MAX_STEP_SIZE)

    def step(carry, _):
        x, opt_state = carry
        update, opt_state = optimizer.update(jax.grad(loss)(x), opt_state)
        x = optax.apply_updates(x, update)
        return (x, opt_state), jnp.stack([x, optax_rprop.step_sizes(opt_state)])

    start = jnp.asarray(START)
    _, rows = lax.scan(step, (start, optimizer.init(start)), length=steps)
    return np.vstack([(START, LEARNING_RATE), rows])


def numpy_trace(steps: int) -> np.ndarray:
    """The same, without JAX and the library."""
    x, step_size, prev_sign = START, LEARNING_RATE, 0
    rows = [(x, step_size)]
    for _ in range(steps):
        sign = np.sign(2 * x)
        if sign * prev_sign > 0:
            step_size = min(step_size * ETA_PLUS, MAX_STEP_SIZE)
        elif sign * prev_sign < 0:
            step_size = max(step_size * ETA_MINUS, MIN_STEP_SIZE)
            sign = 0  # x stays, and the next step finds no sign to compare its own with
        x -= sign * step_size
        prev_sign = sign
        rows.append((x, step_size))
    return np.array(rows)


def draw(xs: np.ndarray, step_sizes: np.ndarray, file: Path) -> None:
    figure, (places, sizes) = plt.subplots(2, 1, figsize=(7, 6), sharex=True)
    steps = np.arange(len(xs))
    places.plot(steps, xs, "o-", ms=3, color=COLORS["irprop_minus"])
    places.set(ylabel="x", title="x jumps over the minimum, and the step size is halved")
    places.axhline(0, color="black", lw=0.8)
    places.text(steps[-1], 0.15, "minimum", ha="right")

    sizes.semilogy(steps, step_sizes, color="lightgray", zorder=0)
    ratio = np.append(1, step_sizes[1:] / step_sizes[:-1])
    for chosen, marker, color, label in (
        (ratio > 1, "^", "#2ca02c", rf"$\times$ {ETA_PLUS:g}: the slope kept its sign"),
        (ratio < 1, "v", "#d62728", rf"$\times$ {ETA_MINUS:g}: it changed, and x stays"),
        (ratio == 1, "o", "gray", "unchanged: the first, and after each halving"),
    ):
        sizes.semilogy(steps[chosen], step_sizes[chosen], marker, ms=5, color=color, label=label)
    sizes.set(xlabel="step", ylabel="step size, in units of x")
    sizes.legend()
    save(figure, file)


def main(arguments: Sequence[str] | None = None) -> dict[str, list[float] | float]:
    made = parser(__doc__, "parabola")
    made.add_argument("--steps", type=positive, default=50, help="of the optimizer")
    given = made.parse_args(arguments)

    rows = trace(given.steps)
    print(f"{'step':>4} {'x':>13} {'f(x)':>9} {'step size':>12}")
    for step, (x, step_size) in enumerate(rows):
        print(f"{step:4} {x:13.9f} {loss(x):9.2e} {step_size:12.9f}")
    difference = float(abs(rows - numpy_trace(given.steps)).max())
    print(f"\nThe largest difference from the NumPy loop's x and step sizes: {difference:g}")
    xs, step_sizes = rows.T
    if given.plot:
        draw(xs, step_sizes, given.plot)
    return {"xs": xs.tolist(), "step_sizes": step_sizes.tolist(), "difference": difference}


if __name__ == "__main__":
    main()
