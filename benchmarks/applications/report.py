"""What was found: the gap that is left, as tables and as a picture."""

import matplotlib as mpl
import numpy as np

mpl.use("Agg")
import matplotlib.pyplot as plt

from contenders import RATES, SHARES

ADAM = "adam, best rate"
COLUMNS = {  # the columns, and their colors in the picture: those of the CUTEst curves
    "rprop_lbfgs": "tab:purple",
    "rprop_momentum": "tab:red",
    "irprop_minus": "tab:orange",
    ADAM: "tab:blue",
    "default": "tab:cyan",
    "optax.lbfgs": "black",
    "L-BFGS-B": "tab:green",
}
AFTER = {"a tenth": 2, "a third": 9, "all": 29}  # of the budget, as an index of SHARES


def gaps(record):
    """{contender: the gap left of each start, at each of SHARES}; Adam at its best rate.

    The gap is (best so far - best known) / (first - best known). What is below the rounding of
    the loss is no difference.
    """
    found = {}
    for start in record["starts"]:
        known, span = start["known"], start["first"] - start["known"]
        least = max(1e-12, 8 * np.finfo(record["dtype"]).eps * abs(known) / span)
        for name, best in start["best"].items():
            gap = np.clip((np.array(best) - known) / span, least, 1)
            found.setdefault(name, []).append(gap)
    found = {name: np.array(gap) for name, gap in found.items()}
    rates = [found.pop(name) for rate in RATES if (name := f"adam {rate:g}") in found]
    if rates:
        found[ADAM] = min(rates, key=lambda gap: np.log(gap[:, -1]).sum())
    return {name: found[name] for name in COLUMNS if name in found}


def wins(found, at):
    """In how many starts each contender is the best, or level with it."""
    best = np.min([gap[:, at] for gap in found.values()], 0)
    return {name: int(np.sum(gap[:, at] <= best)) for name, gap in found.items()}


def summary(records):
    """The problems' gaps, and the contenders that ran; `default` is not everywhere."""
    found = {name: gaps(record) for name, record in records.items()}
    names = [name for name in COLUMNS if any(name in gap for gap in found.values())]
    return found, names


def mean(values):
    return float(np.exp(np.mean(np.log(values))))


def table(records):
    """Prints the gaps, the geometric mean of the two starts in a cell."""
    found, names = summary(records)
    runs = sum(len(record["starts"]) for record in records.values())
    for label, at in AFTER.items():
        print(f"\nThe gap left after {label} of the budget; * the least, in a start or two:")
        print(" " * 22 + "".join(f"{name:>17}" for name in names))
        for problem, gap in found.items():
            best = wins(gap, at)
            cells = [
                f"{mean(gap[name][:, at]):.1e}{'*' * best[name]:2}" if name in gap else "-  "
                for name in names
            ]
            print(f"{problem:22}" + "".join(f"{cell:>17}" for cell in cells))
        having = {name: [gap for gap in found.values() if name in gap] for name in names}
        means = [mean([gap[name][:, at] for gap in having[name]]) for name in names]
        total = [sum(wins(gap, at)[name] for gap in having[name]) for name in names]
        print(f"{'geometric mean':22}" + "".join(f"{value:.1e}  ".rjust(17) for value in means))
        print(f"{f'best of {runs} runs':22}" + "".join(f"{count}  ".rjust(17) for count in total))
    print("\nThe default of the client library:")
    for name, record in records.items():
        if record["default"]:
            print(f"{name:22}{record['default']}")


def plot(records, path):
    """Draws the mean gap against the budget, and every problem's gap."""
    found, names = summary(records)
    plt.rcParams["font.size"] = 11
    heights = 3.8, 2.2 + 0.3 * len(found)
    figure = plt.figure(figsize=(10, sum(heights)), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=heights)
    axis = top.subplots()
    for name in names:
        having = [gap[name] for gap in found.values() if name in gap]
        if len(having) == len(found):
            curve = np.exp(np.mean(np.log(np.concatenate(having)), 0))
            axis.plot(SHARES, curve, c=COLUMNS[name], lw=2, label=name)
    axis.set(yscale="log", xlim=(0, 1), xlabel="share of the gradient evaluations")
    axis.set_title(f"Gap left to the best known loss, geometric mean of {len(found)} problems")
    axis.xaxis.set_major_formatter(mpl.ticker.PercentFormatter(1))
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))

    axes = bottom.subplots(1, len(AFTER), sharey=True)
    for axis, (label, at) in zip(axes, AFTER.items(), strict=True):
        cells = np.full((len(found), len(names)), np.nan)
        for i, gap in enumerate(found.values()):
            for j, name in enumerate(names):
                if name in gap:
                    cells[i, j] = -np.log10(mean(gap[name][:, at]))
        axis.imshow(cells, aspect="auto", cmap="YlGn", vmin=0, vmax=9)
        for (i, j), value in np.ndenumerate(cells):
            if np.isfinite(value):
                style = {"weight": "bold"} if value >= np.nanmax(cells[i]) - 0.05 else {}
                style |= {"color": "white" if value > 6 else "black", "fontsize": 9}
                axis.text(j, i, f"{value:.1f}", ha="center", va="center", **style)
        axis.set_title(f"after {label} of the budget", fontsize=11)
        axis.set_xticks(range(len(names)), names, rotation=90, fontsize=9)
        axis.set_yticks(range(len(found)), [name.replace("_", " ") for name in found], fontsize=10)
        axis.tick_params(length=0)
        axis.spines[:].set_visible(False)
    bottom.suptitle(
        "Digits won: -log10 of the gap left (bold: the most; default: the client library's own)"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
    print(f"\nplot: {path}")
