"""Rprop and others on the CUTEst problems: how many are solved by how many gradients?

Every optimizer minimises every problem of sif2jax that has no constraints but bounds, at
most 2,000 variables and a finite start. A problem is solved to a tolerance t by the first
evaluation whose loss f has f - best <= t * (f0 - best), with f0 the loss at the start and
best the smallest loss that anything here finds in float64. An evaluation is a loss with
its gradient; those of line searches count. The plots are data profiles (More & Wild 2009):
the share of problems solved against evaluations.

The docs quote docs/data/cutest.json.gz, which the first three commands read; the next ones run
anew, half an hour each, and go on where they stopped. The last adds new runs to the counts.

    python benchmarks/cutest --from docs/data/cutest.json.gz
    python benchmarks/cutest --from docs/data/cutest.json.gz --half even --condition 1e3 1e9
    python benchmarks/cutest --from docs/data/cutest.json.gz --problems ROSENBR
    python benchmarks/cutest --dtype float64
    python benchmarks/cutest --dtype float32
    python benchmarks/cutest --domain               # NaN outside bounds that are not told
    python benchmarks/cutest --noise 1e-4 --optimizers irprop_minus irprop_plus optax.lbfgs
    python benchmarks/cutest --from docs/data/cutest.json.gz figures/cutest.jsonl --json NEW.json.gz
"""

import argparse
import functools
import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import scipy.optimize
from jax.flatten_util import ravel_pytree
from tqdm import tqdm

sys.path.append(str(Path(__file__).parents[1]))
import optax_rprop
import profiles
import runs
from _common import write
from _lbfgs import optax_lbfgs, scipy_lbfgsb
from collection import problems
from profiles import RATES

MOST_VARIABLES = 2000
SEARCHES = ("optimistix.BFGS", "optax.lbfgs", "SciPy L-BFGS-B", "polish")


def entrants(dtype=jnp.float64, box=None, domain=True):
    """The optimizers that evaluate once a step, by name. Another is one line here."""
    box = box or {}
    least = 1e-9 if dtype == jnp.float32 else 1e-14
    wide = {"min_step_size": least, "max_step_size": 1e6}
    found = {
        "rprop_lbfgs": optax_rprop.rprop_lbfgs(**box),
        "rprop_momentum": optax_rprop.rprop_momentum(**box),
        "irprop_minus": optax_rprop.irprop_minus(**box),
        "irprop_minus wide": optax_rprop.irprop_minus(**wide, **box),
        "irprop_plus": optax_rprop.irprop_plus(**box),
        "irprop_plus wide": optax_rprop.irprop_plus(**wide, **box),
    }
    if domain:
        undo = {"undo_nonfinite": True}
        found["rprop_momentum, undo_nonfinite"] = optax_rprop.rprop_momentum(**undo)
        found["irprop_minus wide, undo_nonfinite"] = optax_rprop.irprop_minus(**wide, **undo)
    makers = optax.rprop, optax.adam, functools.partial(optax.sgd, momentum=0.9)
    for (name, rates), make in zip(RATES.items(), makers, strict=True):
        found |= {f"{name} {rate:g}": make(rate) for rate in rates}
    return found


ROWS = (*entrants(), *SEARCHES)


def run_problem(problem, wanted, evaluations, noise, domain):
    """What the problem is, or why it is left out; and the losses of each optimizer's run."""
    start, unravel = ravel_pytree(problem.y0)
    start = start.astype(jax.dtypes.canonicalize_dtype(float))
    bounds = [ravel_pytree(bound)[0] for bound in getattr(problem, "bounds", None) or ()]
    bounded = any(np.isfinite(bound).any() for bound in bounds)
    about = {"n": start.size, "bounded": bounded}
    if domain and not bounded:
        return about | {"left_out": "has no bounds"}, {}
    if start.size > MOST_VARIABLES:
        return about | {"left_out": f"more than {MOST_VARIABLES:,} variables"}, {}
    if problem.name == "CHARDIS0":  # four million distances an evaluation
        return about | {"left_out": "takes an hour on its own"}, {}
    lower, upper = -jnp.inf, jnp.inf
    if bounded:
        lower, upper = (jnp.full_like(start, bound) for bound in bounds)
        start = jnp.clip(start, lower, upper)

    def exact(x):
        return jnp.squeeze(problem.objective(unravel(x), problem.args)).astype(x.dtype)

    value_and_grad = jax.jit(jax.value_and_grad(exact))
    value, gradient = value_and_grad(start)
    if not (jnp.isfinite(value) & jnp.isfinite(gradient).all()):
        return about | {"left_out": "not finite at the start"}, {}

    loss = runs.with_noise(exact, noise)
    if domain:
        loss, bounded = runs.not_a_number_outside(loss, lower, upper), False
        lower, upper = -jnp.inf, jnp.inf
    box = {"lower": lower, "upper": upper} if bounded else {}
    racers = entrants(start.dtype, box, domain)
    racers = {name: optimizer for name, optimizer in racers.items() if name in wanted}
    raced = runs.race(loss, start, lower, upper, racers, evaluations) if racers else {}
    found = {name: curve for name, (curve, _) in raced.items()}
    if "optimistix.BFGS" in wanted and not bounded:  # it knows none
        found["optimistix.BFGS"] = runs.run_bfgs(loss, start, evaluations)
    if "optax.lbfgs" in wanted and not bounded:
        found["optax.lbfgs"], _ = optax_lbfgs(loss, start, evaluations)
    bounds = scipy.optimize.Bounds(lower, upper)
    if "SciPy L-BFGS-B" in wanted:
        own = jax.jit(jax.value_and_grad(loss))
        found["SciPy L-BFGS-B"], *_ = scipy_lbfgsb(own, start, bounds, evaluations)
    if "polish" in wanted and start.dtype == jnp.float64 and not noise and not domain:
        best = min(raced.values(), key=lambda run: run[0][-1], default=(None, start))[1]
        ends = [start, best]
        for _ in range(3):  # again from where it stopped, which forgets its curvature
            found_ends = [scipy_lbfgsb(value_and_grad, x, bounds, 3000)[2].x for x in ends]
            ends = [jnp.asarray(x, start.dtype) for x in found_ends]
        end = min(ends, key=lambda x: np.nan_to_num(exact(x), nan=np.inf))
        found["polish"] = [exact(end)]
        if start.size <= 100 and not bounded:
            about["condition"] = runs.scaled_condition(exact, end)
    return about | {"f0": float(value)}, found


def run(arguments):
    """Appends a line of JSON for each problem that the file lacks, or lacks an optimizer of."""
    jax.config.update("jax_enable_x64", arguments.dtype == "float64")
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.touch()
    kind = {key: getattr(arguments, key) for key in ("dtype", "noise", "domain", "evaluations")}
    tried = {}
    for record in map(json.loads, arguments.out.read_text().splitlines()):
        if kind.items() <= record.items():
            tried.setdefault(record["problem"], set()).update(record["tried"])
    at = profiles.points(arguments.evaluations)
    chosen = [p for p in problems() if not arguments.problems or p.name in arguments.problems]
    for problem in (bar := tqdm(chosen, smoothing=0)):
        bar.set_description(f"{problem.name:10}")
        missing = set(arguments.optimizers) - tried.get(problem.name, set())
        if not missing:
            continue
        about, found = run_problem(
            problem, missing, arguments.evaluations, arguments.noise, arguments.domain
        )
        for name, losses in found.items():
            best = np.fmin.accumulate(np.asarray(losses, float))
            best = best[at - 1] if best.size > 1 else best
            found[name] = [float(f"{loss:.12g}") for loss in best]
        record = {"problem": problem.name, **kind, **about, "tried": sorted(missing), "best": found}
        with arguments.out.open("a") as file:
            file.write(json.dumps(record) + "\n")


def main():
    """Runs what is asked for, or reads it, and shows it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--problems", nargs="+", help="their names; with --from, each is shown")
    add("--optimizers", nargs="+", choices=ROWS, default=ROWS, metavar="NAME", help=f"{ROWS}")
    add("--evaluations", type=int, default=1000, help="for each run (1000)")
    add("--dtype", choices=("float32", "float64"), default="float64")
    add("--noise", type=float, default=0.0, help="relative, in every gradient")
    add("--domain", action="store_true", help="NaN outside the bounds, untold")
    add("--out", type=Path, default=Path("figures/cutest.jsonl"), help="where runs go")
    add("--from", dest="source", type=Path, nargs="+", help="read, do not run")
    add("--half", choices=("odd", "even", "all"), default="all", help="of the problems shown")
    add("--condition", nargs=2, type=float, metavar=("LOW", "HIGH"), help="at the solution, scaled")
    add("--json", type=Path, help="where the counts go, as .json.gz")
    add("--plot", type=Path, default=Path("figures/cutest.png"), help="where the plot goes")
    arguments = parser.parse_args()
    if not arguments.source:
        run(arguments)
    summary = profiles.load(arguments.source or [arguments.out])
    write(arguments.json, summary)
    summary["problems"] = profiles.select(summary["problems"], arguments.half, arguments.condition)
    if arguments.source and arguments.problems:
        return profiles.by_problem(summary, arguments.problems)
    profiles.table(summary)
    profiles.plot(summary, arguments.plot)


if __name__ == "__main__":
    main()
