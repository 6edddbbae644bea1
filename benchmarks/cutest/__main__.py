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
    python benchmarks/cutest --from docs/data/cutest.json.gz --problems ROSENBR
    python benchmarks/cutest --from docs/data/cutest.json.gz --compare irprop_minus optax.lbfgs
    python benchmarks/cutest --dtype float64
    python benchmarks/cutest --dtype float32
    python benchmarks/cutest --domain               # NaN outside bounds that are not told
    python benchmarks/cutest --noise 1e-4 --optimizers irprop_minus irprop_plus optax.lbfgs
    python benchmarks/cutest --from docs/data/cutest.json.gz figures/cutest.jsonl --json NEW.json.gz
"""

import argparse
import functools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optimistix
from jax.flatten_util import ravel_pytree
from tqdm import tqdm

import optax_rprop
import profiles
from collection import problems
from optax_rprop.optimistix import RpropMinimiser
from profiles import RATES
from runs import (
    not_a_number_outside,
    race,
    run_optax_lbfgs,
    run_optimistix,
    run_scipy,
    with_noise,
)

MOST_VARIABLES = 2000
TOO_SLOW = ("CHARDIS0",)  # four million distances an evaluation
RULES = ("irprop_minus", "irprop_plus", "rprop_plus", "rprop_minus")
SEARCHES = ("RpropMinimiser", "optimistix.BFGS", "optax.lbfgs", "SciPy L-BFGS-B", "polish")


def entrants(start, bounded, lower, upper, domain):
    """The optimizers that evaluate once a step: name -> (what makes it, its settings)."""
    box = {"lower": lower, "upper": upper} if bounded else {}
    least = 1e-9 if start.dtype == jnp.float32 else 1e-14
    papers = {"learning_rate": 0.01, "eta_minus": 0.5, "eta_plus": 1.2}
    default = papers | {"min_step_size": 1e-6, "max_step_size": 50.0}
    wide = papers | {"min_step_size": least, "max_step_size": 1e6}
    size = jnp.abs(start)
    variants = {
        "": default,
        "wide": wide,
        "min 1e-6": wide | {"min_step_size": 1e-6},
        "max 50": wide | {"max_step_size": 50.0},
        "first 1e-4": wide | {"learning_rate": 1e-4},
        "first 1e-3": wide | {"learning_rate": 1e-3},
        "first 0.1": wide | {"learning_rate": 0.1},
        "first 1": wide | {"learning_rate": 1.0},
        "first 0.01|x| + 1e-4": wide | {"learning_rate": 0.01 * size + 1e-4},
        "first 0.1|x| + 0.01": wide | {"learning_rate": 0.1 * size + 0.01},
        "first 0.01 max(1, |x|)": wide | {"learning_rate": 0.01 * jnp.maximum(1, size)},
        "first 0.01 max(1, max |x|)": wide | {"learning_rate": 0.01 * jnp.maximum(1, size.max())},
        "eta+ 1.1": wide | {"eta_plus": 1.1},
        "eta+ 1.5": wide | {"eta_plus": 1.5},
        "eta- 0.7": wide | {"eta_minus": 0.7},
        "eta- 0.7, first 0.01|x| + 1e-4": wide
        | {"eta_minus": 0.7, "learning_rate": 0.01 * size + 1e-4},
    }
    found = {}
    make = functools.partial(optax_rprop.rprop_momentum, **box)
    for eta_minus, variant in ((0.5, ""), (0.7, " eta- 0.7")):  # 0.5 is its default
        found["rprop_momentum" + variant] = make, {"eta_minus": eta_minus}
    for rule in RULES:
        make = functools.partial(getattr(optax_rprop, rule), **box)
        for variant, settings in variants.items():
            if rule in ("irprop_minus", "irprop_plus") or variant in ("", "wide"):
                found[f"{rule} {variant}".strip()] = make, settings
    if domain:
        for name in ("rprop_momentum", "irprop_minus wide"):
            make, settings = found[name]
            make = functools.partial(make, undo_nonfinite=True)
            found[f"{name}, undo_nonfinite"] = make, settings
    makers = optax.rprop, optax.adam, functools.partial(optax.sgd, momentum=0.9)
    for (name, rates), make in zip(RATES.items(), makers, strict=True):
        found |= {f"{name} {rate:g}": (make, {"learning_rate": rate}) for rate in rates}
    return found


def scaled_condition(loss, x):
    """The condition number of the Hessian, with every variable scaled to a curvature of 1."""
    hessian = np.asarray(jax.jit(jax.hessian(loss))(x), float)
    scale = np.sqrt(np.abs(np.diag(hessian)))
    with np.errstate(all="ignore"):
        hessian = hessian / np.outer(scale, scale)
        if not np.isfinite(hessian).all():
            return None
        eigenvalues = np.abs(np.linalg.eigvalsh(hessian))
        return float(min(1e30, eigenvalues.max() / eigenvalues.min()))


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
    if problem.name in TOO_SLOW:
        return about | {"left_out": "takes an hour on its own"}, {}
    lower, upper = -jnp.inf, jnp.inf
    if bounded:
        lower, upper = (jnp.full_like(start, bound) for bound in bounds)
        start = jnp.clip(start, lower, upper)

    def exact(x):
        return jnp.squeeze(problem.objective(unravel(x), problem.args)).astype(x.dtype)

    value, gradient = jax.jit(jax.value_and_grad(exact))(start)
    if not (jnp.isfinite(value) & jnp.isfinite(gradient).all()):
        return about | {"left_out": "not finite at the start"}, {}

    loss = with_noise(exact, noise)
    if domain:
        loss, bounded = not_a_number_outside(loss, lower, upper), False
        lower, upper = -jnp.inf, jnp.inf
    every = entrants(start, bounded, lower, upper, domain)
    racers = {name: entrant for name, entrant in every.items() if name in wanted}
    raced = race(loss, start, lower, upper, racers, evaluations) if racers else {}
    runs = {name: curve for name, (curve, _) in raced.items()}
    if "RpropMinimiser" in wanted:
        tolerance = 1e-5 if start.dtype == jnp.float32 else 1e-8
        solver = RpropMinimiser(
            0.0, tolerance, **({"lower": lower, "upper": upper} if bounded else {})
        )
        runs["RpropMinimiser"] = run_optimistix(solver, loss, start, evaluations)
    if "optimistix.BFGS" in wanted and not bounded:
        solver = optimistix.BFGS(rtol=0.0, atol=0.0)
        runs["optimistix.BFGS"] = run_optimistix(solver, loss, start, evaluations)
    if "optax.lbfgs" in wanted and not bounded:
        runs["optax.lbfgs"] = run_optax_lbfgs(loss, start, evaluations)
    if "SciPy L-BFGS-B" in wanted:
        runs["SciPy L-BFGS-B"], _ = run_scipy(loss, start, lower, upper, evaluations)
    if "polish" in wanted and start.dtype == jnp.float64 and not noise and not domain:
        best = min(raced.values(), key=lambda run: run[0][-1], default=(None, start))[1]
        ends = []
        for x in (start, best):
            for _ in range(3):  # again from where it stopped, which forgets its curvature
                x = run_scipy(exact, x, lower, upper, 3000)[1].x
            ends.append(jnp.asarray(x, start.dtype))
        end = min(ends, key=lambda x: np.nan_to_num(exact(x), nan=np.inf))
        runs["polish"] = [exact(end)]
        if start.size <= 100 and not bounded:
            about["condition"] = scaled_condition(exact, end)
    return about | {"f0": float(value)}, runs


def run(arguments, wanted):
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
        missing = wanted - tried.get(problem.name, set())
        if not missing:
            continue
        about, runs = run_problem(
            problem, missing, arguments.evaluations, arguments.noise, arguments.domain
        )
        for name, losses in runs.items():
            best = np.fmin.accumulate(np.asarray(losses, float))
            best = best[at - 1] if best.size > 1 else best
            runs[name] = [float(f"{loss:.12g}") for loss in best]
        record = {"problem": problem.name, **kind, **about, "tried": sorted(missing), "best": runs}
        with arguments.out.open("a") as file:
            file.write(json.dumps(record) + "\n")


def main():
    """Runs what is asked for, or reads it, and shows it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    every = (*entrants(jnp.ones(1), False, None, None, domain=True), *SEARCHES)
    parser.add_argument("--problems", nargs="+", help="their names; with --from, each is shown")
    parser.add_argument("--optimizers", nargs="+", choices=every, metavar="NAME", help=f"{every}")
    parser.add_argument("--evaluations", type=int, default=1000, help="for each run (1000)")
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float64")
    parser.add_argument("--noise", type=float, default=0.0, help="relative, in every gradient")
    parser.add_argument("--domain", action="store_true", help="NaN outside the bounds, untold")
    parser.add_argument(
        "--out", type=Path, default=Path("figures/cutest.jsonl"), help="where runs go"
    )
    parser.add_argument("--from", dest="source", type=Path, nargs="+", help="read, do not run")
    parser.add_argument("--compare", nargs=2, metavar="NAME", help="two optimizers, by problem")
    parser.add_argument("--json", type=Path, help="where the counts go, as .json.gz")
    parser.add_argument(
        "--plot", type=Path, default=Path("figures/cutest.png"), help="where the plot goes"
    )
    arguments = parser.parse_args()
    if not arguments.source:
        run(arguments, set(arguments.optimizers or every))
    summary = profiles.load(arguments.source or [arguments.out])
    if arguments.json:
        profiles.save(summary, arguments.json)
    if arguments.source and arguments.problems:
        if unknown := set(arguments.problems) - set(summary["problems"]):
            parser.error(f"not among the problems: {', '.join(sorted(unknown))}")
        return profiles.by_problem(summary, arguments.problems)
    if arguments.compare:
        return profiles.compare(summary, *arguments.compare)
    profiles.table(summary, arguments.evaluations)
    profiles.plot(summary, arguments.plot)


if __name__ == "__main__":
    main()
