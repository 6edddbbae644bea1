"""What the example scripts share: their arguments, colours and plots."""

import argparse
from pathlib import Path

import matplotlib
from matplotlib.backend_bases import FigureCanvasBase

matplotlib.use("Agg")
import matplotlib.pyplot as plt

PLOTS = Path(__file__).parent / "plots"

# One colour for each method, the same in every plot: Rprop's variants warm, others cool.
COLORS = {
    "irprop_minus": "#d62728",
    "irprop_plus": "#ff7f0e",
    "rprop_plus": "#b8860b",
    "rprop_minus": "#e377c2",
    "optax.rprop": "#7f7f7f",
    "adam": "#1f77b4",
    "sgd": "#17becf",
    "rmsprop": "#2ca02c",
    "adagrad": "#9467bd",
    "lbfgs": "#000000",
    "scipy": "#8c564b",
}

plt.rcParams.update(
    {
        "figure.dpi": 110,
        "figure.constrained_layout.use": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.alpha": 0.25,
        "legend.frameon": False,
    }
)


def parser(description: str | None, name: str) -> argparse.ArgumentParser:
    """A parser with the arguments that every example takes: --seed, --plot and --no-plot."""
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    made.add_argument("--seed", type=natural, default=0, help="of every random number")
    made.add_argument("--plot", type=writable, default=PLOTS / f"{name}.png", help="where it goes")
    made.add_argument("--no-plot", dest="plot", action="store_const", const=None, help="draw none")
    return made


def natural(text: str) -> int:
    """An argument that is 0, 1, 2, ..."""
    return _from(0, text)


def positive(text: str) -> int:
    """An argument that is 1, 2, 3, ..."""
    return _from(1, text)


def _from(least: int, text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = least - 1
    if not least <= number < 2**32:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from {least} to 2**32 - 1")
    return number


def writable(text: str) -> Path:
    """An argument that is a path to which a figure can be written; its folder is made."""
    path = Path(text)
    try:
        if path.suffix[1:] not in FigureCanvasBase.get_supported_filetypes():
            raise ValueError("end its name in .png, .svg or .pdf")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.open("ab").close()
    except (OSError, ValueError) as error:
        raise argparse.ArgumentTypeError(f"cannot write {path}: {error}") from error
    return path


def save(figure: plt.Figure, path: Path) -> None:
    """Writes a figure, in the format that the path's suffix names, and says where it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    plt.close(figure)
    print(f"plot: {path}")
