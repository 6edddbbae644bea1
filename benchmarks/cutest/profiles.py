"""What was run, read: counts, a table and data profiles (More & Wild 2009)."""

import json
from pathlib import Path

import matplotlib as mpl
import numpy as np

mpl.use("Agg")
import matplotlib.pyplot as plt

from _common import read

KINDS = "without bounds", "with bounds"
TOLERANCES = (1e-1, 1e-3, 1e-5)
RATES = {  # of the optimizers that need one: each is run, and the best counts for each problem
    "optax.rprop": (1e-3, 1e-2, 1e-1, 1.0),
    "adam": (1e-3, 1e-2, 1e-1, 1.0),
    "sgd, momentum": (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1),
}
BEST = {name: f"{name}, best of {len(rates)} rates" for name, rates in RATES.items()}
# Of the tables: solved to a tolerance, in so many evaluations.
COLUMNS = [(1e-1, 20), (1e-1, 1000), (1e-3, 20), (1e-3, 50), (1e-3, 1000)]
COLUMNS += [(1e-5, 50), (1e-5, 100), (1e-5, 1000)]
LINES = {  # of the plot: label, color, line, width
    "rprop_lbfgs": ("rprop_lbfgs()", "tab:purple", "-", 3.2),
    "rprop_momentum": ("rprop_momentum()", "tab:red", "-", 3.2),
    "irprop_minus": ("irprop_minus()", "tab:orange", "-", 2.0),
    BEST["adam"]: ("adam, best of 4 rates", "tab:blue", "-", 1.8),
    "adam 0.01": ("adam(0.01)", "tab:blue", ":", 2.0),
    "optax.lbfgs": ("optax.lbfgs", "black", "--", 1.8),
    "SciPy L-BFGS-B": ("SciPy L-BFGS-B", "tab:green", "-.", 1.8),
}


def points(evaluations):
    """The numbers of evaluations at which a run is recorded, about 5% apart."""
    return np.unique(np.geomspace(1, evaluations, 150).astype(int))


def load(paths):
    """How many evaluations solved what: {section: {optimizer: {problem: [each tolerance]}}}.

    The first of the files may be such a summary (.json.gz), to which the others add their runs.
    """
    known = {"problems": {}, "left_out": {}, "evaluations": {}}
    if paths[0].suffix == ".gz":
        known, paths = read(paths[0]), paths[1:]
    records = [json.loads(line) for path in paths for line in path.open()]
    records = [r for r in records if r["problem"] not in known["left_out"]]
    left_out = known["left_out"] | {
        r["problem"]: r["left_out"] for r in records if "left_out" in r and not r["domain"]
    }
    problems, sections = known["problems"], known["evaluations"]
    before = {name: problem["best"] for name, problem in problems.items()}
    exact = {r["problem"] for r in records if r["dtype"] == "float64"} | set(problems)
    for r in records:
        if "f0" in r and (r["dtype"] == "float64" or r["problem"] not in exact):
            problem = problems.setdefault(r["problem"], {"best": np.inf})
            problem.update({key: r[key] for key in ("n", "bounded", "f0", "condition") if key in r})
            ends = [losses[-1] for losses in r["best"].values()]
            problem["best"] = min([problem["best"], *ends])
    for name, problem in problems.items():
        if problem["best"] < -1e20:
            left_out[name] = "unbounded below"
        elif not problem["best"] < problem["f0"]:
            left_out[name] = "starts at its best known value"
        elif (before.get(name, -np.inf) - problem["best"]) > 1e-7 * (
            problem["f0"] - problem["best"]
        ):
            print(f"{name} has a lower loss than known: run all optimizers on it again")
    problems = {name: problems[name] for name in sorted(set(problems) - set(left_out))}
    for r in records:
        if r["problem"] not in problems:
            continue
        problem = problems[r["problem"]]
        at = points(r["evaluations"])
        section = r["dtype"] + (f", noise {r['noise']:g}" if r["noise"] else "")
        section += ", NaN outside the bounds" if r["domain"] else ""
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
                runs[BEST[name]] = {
                    problem: [
                        min(filter(None, counts), default=None)
                        for counts in zip(*(run[problem] for run in tuned), strict=True)
                    ]
                    for problem in tuned[0]
                }
    return {"problems": problems, "left_out": left_out, "evaluations": sections}


def select(problems, half, condition):
    """The first, third, ... problem by name ("odd") or the others; of these, the so conditioned."""
    names = sorted(problems)
    names = {"odd": names[::2], "even": names[1::2], "all": names}[half]
    if condition:
        known = {name: problems[name].get("condition") or np.nan for name in names}
        names = [name for name in names if condition[0] <= known[name] < condition[1]]
    return {name: problems[name] for name in names}


def share(run, names, tolerance, evaluations):
    """The share of the problems `names` that are solved to a tolerance within each number."""
    needed = np.array([run[name][TOLERANCES.index(tolerance)] for name in names], float)
    return np.mean(needed <= np.asarray(evaluations)[..., None], axis=-1)


def of_kind(summary, run, bounded):
    """The problems of a run that are shown, and have bounds or none."""
    shown = {n for n, problem in summary["problems"].items() if problem["bounded"] == bounded}
    return [name for name in run if name in shown]


def table(summary):
    """Prints the share of problems that every optimizer solves, and what was left out."""
    for section, runs in summary["evaluations"].items():
        for bounded, kind in enumerate(KINDS):
            names = {optimizer: of_kind(summary, run, bounded) for optimizer, run in runs.items()}
            rows = {
                optimizer: [share(runs[optimizer], own, *column) for column in COLUMNS]
                for optimizer, own in names.items()
                if own
            }
            if rows:
                print(f"\n{section}, {max(map(len, names.values()))} problems {kind}, solved to")
                print(" " * 40 + "".join(f"{tolerance:7.0e}" for tolerance, _ in COLUMNS))
                print(f"{'within':40}" + "".join(f"{count:7}" for _, count in COLUMNS))
            for optimizer, shares in sorted(rows.items(), key=lambda row: -row[1][-1]):
                print(f"{optimizer:40}" + "".join(f"{own:7.2f}" for own in shares))
    reasons = {}
    for name, reason in summary["left_out"].items():
        reasons.setdefault(reason, []).append(name)
    for reason, names in reasons.items():
        print(f"\nleft out, {reason} ({len(names)}): {', '.join(sorted(names))}")


def by_problem(summary, names):
    """Prints by which evaluation every optimizer solves the problems `names`."""
    for name in names:
        p = summary["problems"][name]
        condition = f", scaled condition {p['condition']:.0e}" if p.get("condition") else ""
        print(f"\n{name}: {p['n']} variables{condition}, from {p['f0']:.6g} to {p['best']:.6g};")
        print(f"{'the evaluation that solves it to':40}" + "".join(f"{t:8.0e}" for t in TOLERANCES))
        for section, runs in summary["evaluations"].items():
            rows = [(run[name], optimizer) for optimizer, run in runs.items() if name in run]
            for counts, optimizer in sorted(rows, key=lambda row: row[0][-1] or np.inf):
                print(f"{optimizer:40}" + "".join(f"{c or '-':>8}" for c in counts), "", section)


def plot(summary, path: Path):
    """Draws the data profiles of the problems without bounds."""
    plt.rcParams["font.size"] = 13
    names = [name for name, problem in summary["problems"].items() if not problem["bounded"]]
    sections = [s for s in ("float32", "float64") if s in summary["evaluations"] and names]
    if not sections:
        return
    figure, axes = plt.subplots(
        len(TOLERANCES),
        len(sections),
        figsize=(6.4, 7.6),  # legible on a phone
        sharex=True,
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    at = points(1000)
    for column, section in zip(axes.T, sections, strict=True):
        runs = summary["evaluations"][section]
        for name, (label, color, line, width) in LINES.items():
            ran = [problem for problem in names if problem in runs.get(name, ())]
            if not ran:
                continue
            for axis, tolerance in zip(column, TOLERANCES, strict=True):
                solved = share(runs[name], ran, tolerance, at)
                order = 3 if name.startswith("rprop") else 2
                axis.plot(at, solved, line, c=color, lw=width, label=label, zorder=order)
        column[0].set_title(section)
    for axis, tolerance in zip(axes[:, 0], TOLERANCES, strict=True):
        axis.set_ylabel(f"solved to {tolerance:.0e}".replace("e-0", "e-"))
    for axis in axes.flat:
        axis.set(xscale="log", xlim=(1, 1000), ylim=(0, 1), yticks=[0, 0.25, 0.5, 0.75, 1])
        axis.set_xticks([1, 10, 100, 1000], ["1", "10", "100", "1000"])
        axis.yaxis.set_major_formatter(mpl.ticker.PercentFormatter(1))
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    for axis in axes[-1]:
        axis.set_xlabel("gradient evaluations")
    figure.suptitle(f"{len(names)} CUTEst problems without bounds")
    handles = axes[0, -1].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=2, frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    print(f"\nplot: {path}")
