"""What `cutest.py` has run, read: counts, a table and data profiles (More & Wild 2009)."""

import gzip
import json
from pathlib import Path

import matplotlib as mpl
import numpy as np

mpl.use("Agg")
import matplotlib.pyplot as plt

TOLERANCES = (1e-1, 1e-3, 1e-5)
RATES = {  # of the optimizers that need one: each is run, and the best counts for each problem
    "optax.rprop": (1e-3, 1e-2, 1e-1, 1.0),
    "adam": (1e-3, 1e-2, 1e-1, 1.0),
    "sgd, momentum": (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1),
}
BEST = {name: f"{name}, best of {len(rates)} rates" for name, rates in RATES.items()}
LINES = {  # of the plot: label, color, line, width
    "irprop_minus": ("irprop_minus", "#d62728", "-", 2.4),
    "irprop_plus": ("irprop_plus", "#ff7f0e", "-", 2.4),
    "optax.rprop 0.01": ("optax.rprop(0.01)", "#8c564b", "-", 1.4),
    BEST["adam"]: ("adam, best of 4 rates\nfor each problem", "#1f77b4", "-", 1.8),
    "adam 0.01": ("adam(0.01)", "#1f77b4", ":", 1.8),
    BEST["sgd, momentum"]: (
        "sgd with momentum, best\nof 6 rates for each problem",
        "#17becf",
        "-",
        1.4,
    ),
    "optax.lbfgs": ("optax.lbfgs", "black", "--", 1.4),
    "SciPy L-BFGS-B": ("SciPy L-BFGS-B", "#666666", "-.", 1.4),
    "optimistix.BFGS": ("optimistix.BFGS", "#9467bd", "--", 1.4),
}


def points(evaluations):
    """The numbers of evaluations at which a run is recorded, about 5% apart."""
    return np.unique(np.geomspace(1, evaluations, 150).astype(int))


def summarise(records):
    """How many evaluations solved what: {section: {optimizer: {problem: [each tolerance]}}}."""
    left_out = {r["problem"]: r["left_out"] for r in records if "left_out" in r}
    problems, best = {}, {}
    for r in records:
        if r["dtype"] == "float64" and "f0" in r:
            problems[r["problem"]] = {key: r[key] for key in ("n", "bounded", "f0")}
            lowest = min((losses[-1] for losses in r["best"].values()), default=np.inf)
            best[r["problem"]] = min(best.get(r["problem"], np.inf), lowest)
    for name, problem in problems.items():
        problem["best"] = best[name]
        if problem["best"] < -1e20:
            left_out[name] = "unbounded below"
        elif not problem["best"] < problem["f0"]:
            left_out[name] = "starts at its best known value"
    problems = {name: problems[name] for name in sorted(set(problems) - set(left_out))}
    sections = {}
    for r in records:
        if r["problem"] not in problems:
            continue
        problem = problems[r["problem"]]
        at = points(r["evaluations"])
        section = r["dtype"] + (f", noise {r['noise']:g}" if r["noise"] else "")
        for optimizer, losses in r["best"].items():
            left = (np.array(losses) - problem["best"]) / (problem["f0"] - problem["best"])
            solved = [left <= tolerance for tolerance in TOLERANCES]
            if optimizer != "polish":
                run = sections.setdefault(section, {}).setdefault(optimizer, {})
                run[r["problem"]] = [int(at[s.argmax()]) if s.any() else None for s in solved]
    for runs in sections.values():
        for name, rates in RATES.items():
            tuned = [runs[f"{name} {rate:g}"] for rate in rates if f"{name} {rate:g}" in runs]
            if len(tuned) == len(rates):
                runs[BEST[name]] = {p: _best_of([run[p] for run in tuned]) for p in tuned[0]}
    return {"problems": problems, "left_out": left_out, "evaluations": sections}


def _best_of(runs):
    return [min(filter(None, counts), default=None) for counts in zip(*runs, strict=True)]


def load(paths):
    """The counts in a .json.gz file that `save` wrote, or those of raw .jsonl files."""
    if paths[0].suffix == ".gz":
        return json.loads(gzip.decompress(paths[0].read_bytes()))
    return summarise([json.loads(line) for path in paths for line in path.open()])


def save(summary, path: Path):
    """Writes the counts."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(json.dumps(summary).encode(), mtime=0))


def share_solved(run, names, evaluations):
    """The share of the problems `names` that are solved, for each tolerance."""
    needed = np.array([run[name] for name in names], float)
    return np.mean(needed[..., None] <= evaluations, axis=0)


def table(summary, evaluations):
    """Prints the share of problems that every optimizer solves, and what was left out."""
    for section, runs in summary["evaluations"].items():
        for bounded, kind in enumerate(("without bounds", "with bounds")):
            rows, most = [], 0
            for optimizer, run in runs.items():
                names = [name for name in run if summary["problems"][name]["bounded"] == bounded]
                if names:
                    shares = share_solved(run, names, [evaluations])[:, 0]
                    rows.append((*shares[::-1], optimizer))
                    most = max(most, len(names))
            if rows:
                head = "".join(f"{tolerance:8.0e}" for tolerance in TOLERANCES)
                print(f"\n{section}, {most} problems {kind}, solved within {evaluations}:")
                print(" " * 40 + head)
            for *shares, optimizer in sorted(rows, reverse=True):
                print(f"{optimizer:40}" + "".join(f"{share:8.3f}" for share in shares[::-1]))
    reasons = {}
    for name, reason in summary["left_out"].items():
        reasons.setdefault(reason, []).append(name)
    for reason, names in reasons.items():
        print(f"\nleft out, {reason} ({len(names)}): {', '.join(sorted(names))}")


def plot(summary, path: Path):
    """Draws the data profiles of the problems without bounds."""
    sections = [section for section in ("float32", "float64") if section in summary["evaluations"]]
    size = 11, 3.3 * len(sections) + 0.5
    figure, axes = plt.subplots(
        len(sections),
        3,
        figsize=size,
        sharex=True,
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    at = points(1000)
    for row, section in zip(axes, sections, strict=True):
        runs = summary["evaluations"][section]
        for name in [name for name in LINES if name in runs]:
            names = [n for n in runs[name] if not summary["problems"][n]["bounded"]]
            label, color, line, width = LINES[name]
            for axis, share in zip(row, share_solved(runs[name], names, at), strict=True):
                axis.plot(at, share, line, color=color, linewidth=width, label=label)
        row[0].set_ylabel(f"{section}\nshare of {len(names)} problems solved")
    for axis, tolerance in zip(axes[0], TOLERANCES, strict=True):
        axis.set_title(f"solved to {tolerance:.0e}")
    for axis in axes.flat:
        axis.set(xscale="log", xlim=(1, 1000), ylim=(0, 1))
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    for axis in axes[-1]:
        axis.set_xlabel("gradient evaluations")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside right", frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
    print(f"\nplot: {path}")
