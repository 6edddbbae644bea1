"""What was run, read: counts, a table and data profiles (More & Wild 2009)."""

import gzip
import itertools
import json
from pathlib import Path

import matplotlib as mpl
import numpy as np

mpl.use("Agg")
import matplotlib.pyplot as plt

KINDS = "without bounds", "with bounds"
TOLERANCES = (1e-1, 1e-3, 1e-5)
RATES = {  # of the optimizers that need one: each is run, and the best counts for each problem
    "optax.rprop": (1e-3, 1e-2, 1e-1, 1.0),
    "adam": (1e-3, 1e-2, 1e-1, 1.0),
    "sgd, momentum": (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1),
}
BEST = {name: f"{name}, best of {len(rates)} rates" for name, rates in RATES.items()}
LINES = {  # of the plot, and rows of the short tables: label, color, line, width
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


def summarise(records, known=None):
    """How many evaluations solved what: {section: {optimizer: {problem: [each tolerance]}}}.

    Where there is a `known` summary, the counts are added to it.
    """
    known = known or {"problems": {}, "left_out": {}, "evaluations": {}}
    records = [r for r in records if r["problem"] not in known["left_out"]]
    left_out = known["left_out"] | {
        r["problem"]: r["left_out"] for r in records if "left_out" in r and not r["domain"]
    }
    problems, sections = known["problems"], known["evaluations"]
    before = {name: problem["best"] for name, problem in problems.items()}
    best = dict(before)
    exact = {r["problem"] for r in records if r["dtype"] == "float64"} | set(problems)
    for r in records:
        if "f0" in r and (r["dtype"] == "float64" or r["problem"] not in exact):
            about = {key: r[key] for key in ("n", "bounded", "f0", "condition") if key in r}
            problems.setdefault(r["problem"], {}).update(about)
            lowest = min((losses[-1] for losses in r["best"].values()), default=np.inf)
            best[r["problem"]] = min(best.get(r["problem"], np.inf), lowest)
    for name, problem in problems.items():
        problem["best"] = best[name]
        if problem["best"] < -1e20:
            left_out[name] = "unbounded below"
        elif not problem["best"] < problem["f0"]:
            left_out[name] = "starts at its best known value"
        elif before.get(name, best[name]) - best[name] > 1e-7 * (problem["f0"] - best[name]):
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
                runs[BEST[name]] = {p: _best_of([run[p] for run in tuned]) for p in tuned[0]}
    return {"problems": problems, "left_out": left_out, "evaluations": sections}


def _best_of(runs):
    return [min(filter(None, counts), default=None) for counts in zip(*runs, strict=True)]


def load(paths):
    """The counts in a .json.gz file that `save` wrote, with those of raw .jsonl files after it."""
    known = None
    if paths[0].suffix == ".gz":
        known, paths = json.loads(gzip.decompress(paths[0].read_bytes())), paths[1:]
    return summarise([json.loads(line) for path in paths for line in path.open()], known)


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
        for bounded, kind in enumerate(KINDS):
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
    by_condition(summary)
    by_half(summary, evaluations)
    reasons = {}
    for name, reason in summary["left_out"].items():
        reasons.setdefault(reason, []).append(name)
    for reason, names in reasons.items():
        print(f"\nleft out, {reason} ({len(names)}): {', '.join(sorted(names))}")


def by_condition(summary):
    """Prints how the solved share depends on the scaled condition number at the solution."""
    runs = summary["evaluations"].get("float64", {})
    known = {n: p["condition"] for n, p in summary["problems"].items() if p.get("condition")}
    ranges = (0, 1e3), (1e3, 1e9), (1e9, np.inf)
    groups = [[name for name, c in known.items() if a <= c < b] for a, b in ranges]
    if not all(groups):
        return
    print("\nfloat64, solved to 1e-5 within 1000, by the condition number at the solution with")
    print("every variable scaled to a curvature of 1 (no bounds, at most 100 variables):")
    heads = ("below 1e3", "1e3 to 1e9", "above 1e9")
    heads = [f"{h} ({len(group)})" for h, group in zip(heads, groups, strict=True)]
    print(" " * 40 + "".join(f"{head:>16}" for head in heads))
    for name in (name for name in LINES if name in runs):
        shares = [share_solved(runs[name], group, [1000])[-1, 0] for group in groups]
        print(f"{name:40}" + "".join(f"{share:16.3f}" for share in shares))


def by_half(summary, evaluations):
    """Prints the shares on the problems that rprop_momentum was developed on, and on the others."""
    problems = sorted(summary["problems"])
    for section, kind in itertools.product(("float32", "float64"), KINDS):
        runs = summary["evaluations"].get(section, {})
        own = [_are(summary, kind, runs.get("rprop_momentum", ()), problems[i::2]) for i in (0, 1)]
        if not all(own):
            continue
        first, second = map(len, own)
        print(f"\n{section}, problems {kind}, solved within {evaluations}: every second one,")
        print(f"by name, on which the settings of rprop_momentum were chosen ({first}); the others")
        print(f"({second}):")
        head = "".join(f"{tolerance:8.0e}" for tolerance in TOLERANCES)
        print(" " * 40 + f"{head}    {head}")
        for name in LINES:
            halves = [
                [problem for problem in half if problem in runs.get(name, ())] for half in own
            ]
            if all(halves):
                shares = [share_solved(runs[name], half, [evaluations])[:, 0] for half in halves]
                cells = ("".join(f"{share:8.3f}" for share in half) for half in shares)
                print(f"{name:40}" + "    ".join(cells))


def _are(summary, kind, run, names):
    """Those of the problems `names` that are of a kind, and in a run."""
    bounded = bool(KINDS.index(kind))
    return [n for n in names if n in run and summary["problems"][n]["bounded"] == bounded]


def by_problem(summary, names):
    """Prints by which evaluation every optimizer solves the problems `names`."""
    for name in names:
        print(f"\n{_described(summary, name)}; the evaluation that solves it to:")
        print(" " * 40 + "".join(f"{tolerance:8.0e}" for tolerance in TOLERANCES))
        for section, runs in summary["evaluations"].items():
            rows = [(run[name], optimizer) for optimizer, run in runs.items() if name in run]
            for counts, optimizer in sorted(rows, key=lambda row: row[0][-1] or np.inf):
                print(f"{optimizer:40}" + "".join(f"{c or '-':>8}" for c in counts), "", section)


def _described(summary, name):
    p = summary["problems"][name]
    condition = f", scaled condition {p['condition']:.0e}" if p.get("condition") else ""
    return f"{name}: {p['n']} variables{condition}, from {p['f0']:.6g} to {p['best']:.6g}"


def compare(summary, first, second):
    """Prints the problems that one of two optimizers solves and the other does not."""
    pairs = (first, second), (second, first)
    for (section, runs), (a, b) in itertools.product(summary["evaluations"].items(), pairs):
        both = [name for name in runs.get(a, ()) if name in runs.get(b, ())]
        only = sorted(name for name in both if runs[a][name][-1] and not runs[b][name][-1])
        variants = [variant for variant in runs if variant.startswith(f"{b} ")]
        for bounded, kind in enumerate(KINDS):
            names = [name for name in only if summary["problems"][name]["bounded"] == bounded]
            if names:
                print(f"\n{section}, {kind}: {a} solves {len(names)} to 1e-5 that {b} does not:")
            for name in names:
                solve = [v[len(b) + 1 :] for v in variants if runs[v].get(name, [None])[-1]]
                solve = ["wide"] if "wide" in solve else solve
                how = f"; solved by {b} with: {', '.join(solve)}" if solve else ""
                print("  " + _described(summary, name) + how)


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
            for axis, share in zip(column, share_solved(runs[name], ran, at), strict=True):
                order = 3 if name == "rprop_momentum" else 2
                axis.plot(at, share, line, c=color, lw=width, label=label, zorder=order)
        column[0].set_title(section)
    for axis, tolerance in zip(axes[:, 0], TOLERANCES, strict=True):
        axis.set_ylabel(f"solved to {tolerance:.0e}".replace("e-0", "e-"))
    for axis in axes.flat:
        axis.set(xscale="log", xlim=(1, 1000), ylim=(0, 1))
        axis.set_xticks([1, 10, 100, 1000], ["1", "10", "100", "1000"])
        axis.set_yticks([0, 0.25, 0.5, 0.75, 1])
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
