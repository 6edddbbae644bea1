"""The Optimistix minimiser beside others: evaluations, and how far from the minimum it stops.

Every solver is asked for the same tolerance; SciPy's, for a gradient of that size. An
evaluation is one of the function, those of line searches included, with or without its
gradient. Distances are in tolerances: above 1, a success is false.

    python benchmarks/minimiser.py                          seven functions
    python benchmarks/minimiser.py --fits                   fits of benchmarks/applications
    python benchmarks/minimiser.py --random 36              1,152 problems of 32 families
    python benchmarks/minimiser.py --random 1200 --families narrow_valley --tolerance 1e-3
"""

import argparse
import collections
import contextlib
import os
import sys
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # its threads slow a small matrix

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import optimistix
import scipy.optimize
from jax.flatten_util import ravel_pytree

import random_problems
from _lbfgs import scipy_lbfgsb
from optax_rprop.optimistix import RpropMinimiser

jax.config.update("jax_enable_x64", True)

SCALES = np.logspace(-6, 6, 13)
ROTATED = np.linalg.qr(np.random.default_rng(0).normal(size=(20, 20)))[0] * np.logspace(0, 1.5, 20)
MAX_STEPS = 2_000
SQUARES = {1: 1.5, 2: 2.25, 3: 2.625}

# The function, the start, and the one minimum that there is to find from it.
PROBLEMS = {
    "13 scales, 1e-6 to 1e6": (lambda y, _: SCALES @ (y - 1) ** 2, np.zeros(13), np.ones(13)),
    "kinks: the sum of abs(y - 1)": (
        lambda y, _: jnp.abs(y - 1).sum(),
        np.linspace(-3, 3, 10),
        np.ones(10),
    ),
    "domain: y - log(y), steep start": (
        lambda y, _: (y - jnp.log(y)).sum(),
        np.array([1e-3, 30.0]),
        np.ones(2),
    ),
    "Himmelblau": (
        lambda y, _: (y[0] ** 2 + y[1] - 11) ** 2 + (y[0] + y[1] ** 2 - 7) ** 2,
        np.array([2.0, 2.5]),
        np.array([3.0, 2.0]),
    ),
    "Beale": (
        lambda y, _: sum((c - y[0] + y[0] * y[1] ** k) ** 2 for k, c in SQUARES.items()),
        np.array([2.0, 0.0]),
        np.array([3.0, 0.5]),
    ),
    "Rosenbrock": (
        lambda y, _: (1 - y[0]) ** 2 + 100 * (y[1] - y[0] ** 2) ** 2,
        np.array([-1.2, 1.0]),
        np.ones(2),
    ),
    "rotated quadratic, condition 1e3": (
        lambda y, _: jnp.sum((ROTATED.T @ (y - 1)) ** 2),
        np.zeros(20),
        np.ones(20),
    ),
}
FITS = [
    "gp_ard",
    "pharmacokinetics",
    "logistic_raw",
    "logistic",
    "robust_raw",
    "gp_co2",
    "hodgkin_huxley",
    "horseshoe",
]
BOXES = {"gp_ard": (-5.0, 100.0)}  # else length scales that do not matter run away


def solvers(tolerance, lower=None, upper=None):
    others = {"rtol": tolerance, "atol": tolerance}
    return {
        "RpropMinimiser": RpropMinimiser(tolerance, tolerance, lower=lower, upper=upper),
        "BFGS": optimistix.BFGS(**others),
        "LBFGS": optimistix.LBFGS(**others),
        "NonlinearCG": optimistix.NonlinearCG(**others),
        "OptaxMinimiser(lbfgs())": optimistix.OptaxMinimiser(optax.lbfgs(), **others),
        "SciPy's L-BFGS-B": tolerance,
    }


def run(problem, solver, start):
    """Where it ends, how, and after how many evaluations."""
    if isinstance(solver, float):
        value_and_grad = jax.jit(jax.value_and_grad(lambda y: problem.fn(y, problem.args)))
        bounds = scipy.optimize.Bounds(*problem.box())
        *_, found = scipy_lbfgsb(value_and_grad, start, bounds, MAX_STEPS, gtol=solver)
        return found.x, "" if found.success else "no success", found.nfev
    evaluations = []

    def counted(y, args):
        jax.debug.callback(lambda: evaluations.append(1))
        return problem.fn(y, args)

    options = {"max_steps": MAX_STEPS, "throw": False}
    solution = optimistix.minimise(counted, solver, start, problem.args, **options)
    jax.block_until_ready(solution.value)
    jax.effects_barrier()
    results = optimistix.RESULTS
    outcome = "" if solution.result == results.successful else "no success"
    outcome = "stagnation" if solution.result == results.stagnation else outcome
    return np.asarray(solution.value, float), outcome, len(evaluations)


@contextlib.contextmanager
def x64_for(dtype):
    """64-bit types for float64 alone."""
    jax.clear_caches()  # of programs with constants of the other type
    with jax.enable_x64(dtype == "float64"):
        yield
    jax.clear_caches()


def in_tolerances(y, minimum, tolerance):
    return float(np.max(abs(y - minimum) / (tolerance * abs(minimum) + tolerance)))


def functions():
    for name, (fn, start, minimum) in PROBLEMS.items():
        yield random_problems.Problem(name, fn, {}, start, minimum=minimum)


def fits():
    """The losses, starts and bounds of benchmarks/applications, as flat vectors."""
    sys.path.append(str(Path(__file__).parent / "applications"))
    import problems

    for name in FITS:
        problem = problems.PROBLEMS[name]()
        unravel = ravel_pytree(problem.starts[0])[1]

        def loss(y, _, problem=problem, unravel=unravel):
            return problem.loss(unravel(y))

        box = problem.box or BOXES.get(name, ())
        for number, start in enumerate(problem.starts, 1):
            flat = np.asarray(ravel_pytree(start)[0])
            yield random_problems.Problem(f"{name}, start {number}", loss, {}, flat, *box)


def compare(problems, tolerance, dtype):
    """A table of all solvers; where no minimum is known, of the one near the best end.

    A box holds for the solvers that know bounds; the others run without.
    """
    names, total = list(solvers(1.0)), collections.Counter()
    print(f"\n| {dtype}, tolerance {tolerance:g} | " + " | ".join(names) + " |")
    print("|---" * (len(names) + 1) + "|")
    for problem in problems:
        with x64_for(dtype):
            first = jnp.asarray(problem.start, dtype)
            each = solvers(tolerance, problem.lower, problem.upper)
            found = {key: run(problem, solver, first) for key, solver in each.items()}
        inside = [np.clip(y, *problem.box()) for y, *_ in found.values()]
        best = min(inside, key=lambda y: np.nan_to_num(problem.fn(y, {}), nan=np.inf))
        minimum = random_problems.nearest_minimum(problem, best, steps=30)
        cells = []
        for key, (y, outcome, evaluations) in found.items():
            distance = in_tolerances(y, minimum, tolerance)
            outcome = outcome or "false" * (not distance <= 1)
            total[key, outcome] += 1
            cells.append(f"{evaluations:,}, {distance:.0e}" + f", {outcome}" * bool(outcome))
        print(f"| {problem.family} | " + " | ".join(cells) + " |", flush=True)
    counts = [f"{total[key, '']} ({total[key, 'false']})" for key in names]
    print("| **successes that are true (false)** | " + " | ".join(counts) + " |", flush=True)


@eqx.filter_jit
def run_batch(fn, args, starts, lower, upper, tolerance):
    def one(args, start, lower, upper):
        solver = RpropMinimiser(tolerance, tolerance, lower=lower, upper=upper)
        options = {"max_steps": MAX_STEPS, "throw": False}
        solution = optimistix.minimise(fn, solver, start, args, **options)
        results = optimistix.RESULTS
        is_one = [solution.result == x for x in (results.successful, results.stagnation)]
        return solution.value, jnp.stack(is_one), solution.stats["num_steps"]

    return jax.vmap(one)(args, starts, lower, upper)


def at_random(count, tolerance, dtype, families):
    """How the random problems of each family end."""
    columns = "problems", "success", "false", "stagnation", "no end", "median", "90%"
    print(f"\n{dtype + f', tolerance {tolerance:g}':24}" + "".join(f"{x:>11}" for x in columns))
    numbers, groups = {}, collections.defaultdict(list)
    for problem in random_problems.problems(count, families):
        problem = random_problems.rounded(problem, dtype)
        groups[problem.family, len(problem.start)].append(problem)
    for (family, _), group in groups.items():
        jax.clear_caches()  # the programs of a thousand problems need more maps than Linux gives
        _, fn, args, starts, lower, upper, _ = zip(*group, strict=True)
        batch = [jax.tree.map(lambda *x: np.array(x, dtype), *x) for x in (args, starts)]
        box = [None if x[0] is None else np.array(x, dtype) for x in (lower, upper)]
        values, outcome, steps = run_batch(fn[0], *batch, *box, tolerance)
        rows = numbers.setdefault(family, [])
        for problem, y, is_one, n in zip(group, values, outcome, steps, strict=True):
            distance = np.inf
            if is_one[0] and family not in random_problems.UNBOUNDED:
                minimum = random_problems.nearest_minimum(problem, y, steps=150)
                distance = in_tolerances(np.asarray(y, float), minimum, tolerance)
            rows.append([int(n), *map(bool, is_one), distance])
    numbers["all"] = [row for rows in numbers.values() for row in rows]
    for family, rows in numbers.items():
        steps, success, stagnation, distance = np.array(rows).T
        false, neither = success * (distance > 1), (1 - success) * (1 - stagnation)
        sums = [len(rows), *(int(x.sum()) for x in (success, false, stagnation, neither))]
        sums += [int(np.percentile(steps, part)) for part in (50, 90)]
        print(f"{family:24}" + "".join(f"{x:11,}" for x in sums))


def main():
    text = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=text)
    parser.add_argument("--tolerance", type=float, help="default: 1e-5, of fits 1e-3")
    parser.add_argument("--fits", action="store_true", help="eight fits")
    parser.add_argument("--random", type=int, metavar="N", help="N random problems of each family")
    parser.add_argument("--families", nargs="+", choices=random_problems.FAMILIES)
    options = parser.parse_args()
    tolerance = options.tolerance or (1e-3 if options.fits else 1e-5)
    for dtype in ("float64", "float32"):
        if options.random:
            at_random(options.random, tolerance, dtype, options.families)
        else:
            with x64_for(dtype):  # which makes the data of fits, too
                problems = list(fits() if options.fits else functions())
            compare(problems, tolerance, dtype)


if __name__ == "__main__":
    main()
