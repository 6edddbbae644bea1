"""From PyTorch: the same training with torch.optim.Rprop and with optax_rprop.rprop.

Two linear layers are fitted by their mean squared error, once a step on all the data: the line
y = 2 x + 3 through 100 noisy points, and a layer from 3 inputs to 2 outputs. Where torch is
installed it runs beside, from the same start, and the largest difference between the two is
printed: zero, for both follow the signs of the same gradients. The rule is the iRprop- of Igel &
Huesken, "Empirical evaluation of the improved Rprop learning algorithms" (2003), which torch calls
Rprop.

    python examples/from_torch.py
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from _common import COLORS, parser, plt, positive, save

import optax_rprop

try:
    import torch
except ImportError:
    torch = None

# In float32 a gradient near zero can be rounded to another sign here than there.
jax.config.update("jax_enable_x64", True)

ARGUMENTS = {
    "torch.optim.Rprop(params)": "optax_rprop.rprop().init(params)",
    "lr=0.01": "learning_rate=0.01",
    "etas=(0.5, 1.2)": "eta_minus=0.5, eta_plus=1.2",
    "step_sizes=(1e-6, 50)": "min_step_size=1e-6, max_step_size=50",
    "maximize=True": "the gradient of the negated loss",
    "foreach, capturable": "none: jax.jit compiles the step",
    "differentiable=True": "none: jax.grad goes through update",
    "optimizer.state[p]['step_size']": "optax_rprop.step_sizes(opt_state)",
    "optimizer.state[p]['prev'].sign()": "optax_rprop.prev_signs(opt_state)",
}


class Problem(NamedTuple):
    """The data of a linear layer, and where its training starts, shaped as torch's."""

    inputs: np.ndarray
    targets: np.ndarray
    weight: np.ndarray
    bias: np.ndarray


def make_line(rng: np.random.Generator) -> Problem:
    x = rng.uniform(-1, 1, (100, 1))
    y = 2 * x + 3 + 0.1 * rng.normal(size=x.shape)
    return Problem(x, y, rng.normal(size=(1, 1)), rng.normal(size=1))


def make_layer(rng: np.random.Generator) -> Problem:
    inputs = rng.normal(size=(100, 3))
    targets = inputs @ rng.normal(size=(3, 2)) + rng.normal(size=(100, 2))
    return Problem(inputs, targets, rng.normal(size=(2, 3)), rng.normal(size=2))


def least_squares(problem: Problem) -> np.ndarray:
    """What training should arrive at, laid out as a row of a trace."""
    with_ones = np.column_stack([problem.inputs, np.ones(len(problem.inputs))])
    solution = np.linalg.lstsq(with_ones, problem.targets, rcond=None)[0]
    return np.append(solution[:-1].T, solution[-1])


def train(problem: Problem, epochs: int) -> np.ndarray:
    """Every weight, then every bias: a row after each epoch."""
    inputs, targets = jnp.asarray(problem.inputs), jnp.asarray(problem.targets)
    params = {"weight": jnp.asarray(problem.weight), "bias": jnp.asarray(problem.bias)}
    optimizer = optax_rprop.rprop(
        learning_rate=0.01, eta_minus=0.5, eta_plus=1.2, min_step_size=1e-6, max_step_size=50
    )
    opt_state = optimizer.init(params)

    def loss(params):
        outputs = inputs @ params["weight"].T + params["bias"]
        return jnp.mean((outputs - targets) ** 2)

    @jax.jit
    def step(params, opt_state):
        updates, opt_state = optimizer.update(jax.grad(loss)(params), opt_state)
        return optax.apply_updates(params, updates), opt_state

    rows = []
    for _ in range(epochs):
        params, opt_state = step(params, opt_state)
        rows.append(np.append(params["weight"], params["bias"]))
    return np.array(rows)


def train_torch(problem: Problem, epochs: int) -> np.ndarray:
    """The same with torch."""
    inputs, targets, weight, bias = map(torch.tensor, problem)
    layer = torch.nn.Linear(*weight.shape[::-1], dtype=torch.float64)
    layer.load_state_dict({"weight": weight, "bias": bias})
    optimizer = torch.optim.Rprop(
        layer.parameters(), lr=0.01, etas=(0.5, 1.2), step_sizes=(1e-6, 50)
    )
    loss = torch.nn.MSELoss()

    rows = []
    for _ in range(epochs):
        optimizer.zero_grad()
        loss(layer(inputs), targets).backward()
        optimizer.step()
        rows.append(np.append(layer.weight.detach(), layer.bias.detach()))
    return np.array(rows)


def draw(problem: Problem, ours: dict, theirs: dict, file: Path) -> None:
    figure, (points, line, layer) = plt.subplots(1, 3, figsize=(11, 3.9))
    if theirs:
        figure.suptitle("optax_rprop.rprop takes the path of torch.optim.Rprop")
    color = COLORS["irprop_minus"]
    weight, bias = ours["line"][-1]
    ends = np.array([-1, 1])
    points.plot(problem.inputs, problem.targets, ".", color="gray", label="data")
    points.plot(ends, weight * ends + bias, color=color, label=f"y = {weight:.3f} x + {bias:.3f}")
    points.set(xlabel="x", ylabel="y", title="A line through noisy points")
    points.legend()

    epochs = np.arange(len(ours["line"]))[:60] + 1  # later, nothing moves that could be seen
    for axes, name in ((line, "line"), (layer, "layer")):
        axes.plot(epochs, ours[name][epochs - 1], color=color)
        axes.plot([], color=color, label="optax_rprop.rprop")
        if theirs:
            circles = {"marker": "o", "ls": "", "ms": 4, "mfc": "none", "color": "black"}
            axes.plot(epochs, theirs[name][epochs - 1], markevery=4, **circles)
            axes.plot([], label="torch.optim.Rprop", **circles)
        axes.set(xlabel="epoch", ylabel="value")
    line.set_title("The line's w and b")
    line.legend(loc="lower right")
    layer.set_title("The 3-to-2 layer's weights and biases")
    save(figure, file)


def main(arguments: Sequence[str] | None = None) -> dict[str, float | dict[str, float]]:
    made = parser(__doc__, "from_torch")
    made.add_argument("--epochs", type=positive, default=200, help="steps, each on all the data")
    given = made.parse_args(arguments)

    print(f"{'PyTorch':40}optax_rprop")
    for torchs, own in ARGUMENTS.items():
        print(f"{torchs:40}{own}")

    rng = np.random.default_rng(given.seed)
    problems = {"line": make_line(rng), "layer": make_layer(rng)}
    ours = {name: train(problem, given.epochs) for name, problem in problems.items()}
    theirs = {}
    if torch:
        theirs = {name: train_torch(problem, given.epochs) for name, problem in problems.items()}

    weight, bias = ours["line"][-1]
    print(f"\nlearned in {given.epochs} epochs: y = {weight:.6f} x + {bias:.6f}")
    errors, differences = {}, {}
    for name, problem in problems.items():
        errors[name] = float(abs(ours[name][-1] - least_squares(problem)).max())
        print(f"{name}: the largest distance from the least-squares solution is {errors[name]:.1e}")
    for name in theirs:
        differences[name] = float(abs(ours[name] - theirs[name]).max())
        print(f"{name}: the largest difference from torch, in any epoch, is {differences[name]:g}")
    if not torch:
        print("torch is not installed: nothing to compare with.")
    if given.plot:
        draw(problems["line"], ours, theirs, given.plot)
    return {
        "weight": float(weight),
        "bias": float(bias),
        "errors": errors,
        "differences": differences,
    }


if __name__ == "__main__":
    main()
