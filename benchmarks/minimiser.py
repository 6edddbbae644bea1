"""The Optimistix minimiser beside others: evaluations, and how far from the minimum it stops.

Every solver is asked for the same tolerance; SciPy's, for a gradient of that size. An
evaluation is one of the function, those of line searches included, with or without its
gradient. Distances are in tolerances: above 1, a success is false.

    python benchmarks/minimiser.py                          seven functions
    python benchmarks/minimiser.py --fits                   fits of benchmarks/applications
    python benchmarks/minimiser.py --random 36              1,116 problems of 31 families
"""

import argparse
import collections
import contextlib
import json
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
from optax_rprop.optimistix import RpropMinimiser

jax.config.update("jax_enable_x64", True)

SCALES = np.logspace(-6, 6, 13)
ROTATED = np.linalg.qr(np.random.default_rng(0).normal(size=(20, 20)))[0] * np.logspace(0, 1.5, 20)
SQUARES = {1: 1.5, 2: 2.25, 3: 2.625}

# The function, the start, and the one minimum that there is to find from it.
PROBLEMS = {
    "13 scales, 1e-6 to 1e6": (lambda y: SCALES @ (y - 1) ** 2, np.zeros(13), np.ones(13)),
    "kinks: the sum of abs(y - 1)": (
        lambda y: jnp.abs(y - 1).sum(),
        np.linspace(-3, 3, 10),
        np.ones(10),
    ),
    "domain: y - log(y), steep start": (
        lambda y: (y - jnp.log(y)).sum(),
        np.array([1e-3, 30.0]),
        np.ones(2),
    ),
    "Himmelblau": (
        lambda y: (y[0] ** 2 + y[1] - 11) ** 2 + (y[0] + y[1] ** 2 - 7) ** 2,
        np.array([2.0, 2.5]),
        np.array([3.0, 2.0]),
    ),
    "Beale": (
        lambda y: sum((c - y[0] + y[0] * y[1] ** k) ** 2 for k, c in SQUARES.items()),
        np.array([2.0, 0.0]),
        np.array([3.0, 0.5]),
    ),
    "Rosenbrock": (
        lambda y: (1 - y[0]) ** 2 + 100 * (y[1] - y[0] ** 2) ** 2,
        np.array([-1.2, 1.0]),
        np.ones(2),
    ),
    "rotated quadratic, condition 1e3": (
        lambda y: jnp.sum((ROTATED.T @ (y - 1)) ** 2),
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
OURS, SCIPY = "RpropMinimiser", "SciPy's L-BFGS-B"


def solvers(tolerance, lower=None, upper=None):
    others = {"rtol": tolerance, "atol": tolerance}
    return {
        OURS: RpropMinimiser(tolerance, tolerance, lower=lower, upper=upper),
        "BFGS": optimistix.BFGS(**others),
        "LBFGS": optimistix.LBFGS(**others),
        "NonlinearCG": optimistix.NonlinearCG(**others),
        "OptaxMinimiser(lbfgs())": optimistix.OptaxMinimiser(optax.lbfgs(), **others),
        SCIPY: tolerance,
    }


def run(fn, solver, start, max_steps, box=None):
    """Where it ends, how, and after how many evaluations."""
    if isinstance(solver, float):
        value_and_grad = jax.jit(jax.value_and_grad(fn))

        def evaluate(y):
            return [np.asarray(x, float) for x in value_and_grad(jnp.asarray(y, start.dtype))]

        options = {"gtol": solver, "maxfun": max_steps, "maxiter": max_steps}
        arguments = {"jac": True, "method": "L-BFGS-B", "options": options}
        bounds = box and scipy.optimize.Bounds(*box)
        first = np.asarray(start, float)
        found = scipy.optimize.minimize(evaluate, first, bounds=bounds, **arguments)
        return found.x, "" if found.success else "no success", found.nfev
    evaluations = []

    def counted(y, args):
        jax.debug.callback(lambda: evaluations.append(1))
        return fn(y)

    solution = optimistix.minimise(counted, solver, start, max_steps=max_steps, throw=False)
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


def fits(names):
    """The losses, starts and bounds of benchmarks/applications, as flat vectors."""
    sys.path.append(str(Path(__file__).parent / "applications"))
    import problems

    for name in names:
        problem = problems.PROBLEMS[name]()
        unravel = ravel_pytree(problem.starts[0])[1]
        for number, start in enumerate(problem.starts, 1):
            flat = np.asarray(ravel_pytree(start)[0])

            def loss(y, problem=problem, unravel=unravel):
                return problem.loss(unravel(y))

            yield f"{name}, start {number}", loss, flat, None, problem.box or BOXES.get(name)


def compare(problems, tolerance, dtype, max_steps):
    """A table of all solvers; for a problem without a minimum, of the one near the best end.

    A box holds for the solvers that know bounds; the others run without.
    """
    names, numbers = list(solvers(1.0)), {}
    total = collections.Counter()
    print(f"\n| {dtype}, tolerance {tolerance:g} | " + " | ".join(names) + " |")
    print("|---" * (len(names) + 1) + "|")
    for name, fn, start, minimum, box in problems:
        with x64_for(dtype):
            first = jnp.asarray(start, dtype)
            each = solvers(tolerance, *(box or ()))
            found = {key: run(fn, each[key], first, max_steps, box) for key in names}
        if minimum is None:
            inside = [np.clip(one[0], *(box or (-np.inf, np.inf))) for one in found.values()]
            best = min(inside, key=lambda y: np.nan_to_num(fn(y), nan=np.inf))

            def of_problem(y, args, fn=fn):
                return fn(y)

            problem = random_problems.Problem(name, 0, of_problem, {}, start, *(box or ()))
            minimum = random_problems.nearest_minimum(problem, best, steps=30)
        cells = []
        for key, (y, outcome, evaluations) in found.items():
            distance = in_tolerances(y, minimum, tolerance)
            outcome = outcome or "false" * (not distance <= 1)
            total[key, outcome] += 1
            cells.append(f"{evaluations:,}, {distance:.0e}" + f", {outcome}" * bool(outcome))
            numbers.setdefault(name, {})[key] = [evaluations, distance, outcome]
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)
    counts = [f"{total[key, '']} ({total[key, 'false']})" for key in names]
    print("| **successes that are true (false)** | " + " | ".join(counts) + " |", flush=True)
    return numbers


@eqx.filter_jit
def run_batch(fn, args, starts, lower, upper, tolerance, max_steps):
    def one(args, start, lower, upper):
        solver = RpropMinimiser(tolerance, tolerance, lower=lower, upper=upper)
        options = {"max_steps": max_steps, "throw": False}
        solution = optimistix.minimise(fn, solver, start, args, **options)
        results = optimistix.RESULTS
        is_one = [solution.result == x for x in (results.successful, results.stagnation)]
        return solution.value, jnp.stack(is_one), solution.stats["num_steps"]

    return jax.vmap(one)(args, starts, lower, upper)


def at_random(count, tolerance, dtype, max_steps, families=None):
    """How the random problems of each family end."""
    columns = "problems", "success", "false", "stagnation", "no end", "median", "90%"
    print(f"\n{dtype + f', tolerance {tolerance:g}':24}" + "".join(f"{x:>11}" for x in columns))
    numbers, groups = {}, collections.defaultdict(list)
    for problem in random_problems.problems(count, families):
        problem = random_problems.rounded(problem, dtype)
        groups[problem.family, len(problem.start)].append(problem)
    for (family, _), group in groups.items():
        jax.clear_caches()  # the programs of a thousand problems need more maps than Linux gives
        _, _, fn, args, starts, lower, upper, _ = zip(*group, strict=True)
        batch = [jax.tree.map(lambda *x: np.array(x, dtype), *x) for x in (args, starts)]
        box = [None if x[0] is None else np.array(x, dtype) for x in (lower, upper)]
        values, outcome, steps = run_batch(fn[0], *batch, *box, tolerance, max_steps)
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
    return numbers


def main():
    text = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=text)
    parser.add_argument("--tolerance", type=float, help="default: 1e-5, of fits 1e-3")
    parser.add_argument("--dtypes", nargs="+", default=["float64", "float32"])
    parser.add_argument("--problems", nargs="+", default=list(PROBLEMS), choices=PROBLEMS)
    parser.add_argument("--fits", nargs="*", help="these fits, or eight")
    parser.add_argument("--random", type=int, metavar="N", help="N random problems of each family")
    parser.add_argument("--families", nargs="+", choices=random_problems.FAMILIES)
    parser.add_argument("--max-steps", type=int, default=2_000)
    parser.add_argument("--json", type=Path, help="where all numbers go")
    options = parser.parse_args()
    numbers, tolerance = {}, options.tolerance or (1e-5 if options.fits is None else 1e-3)
    for dtype in options.dtypes:
        rest = tolerance, dtype, options.max_steps
        if options.random:
            numbers[dtype] = at_random(options.random, *rest, options.families)
        elif options.fits is None:
            given = [(name, *PROBLEMS[name], None) for name in options.problems]
            numbers[dtype] = compare(given, *rest)
        else:
            with x64_for(dtype):  # which makes their data, too
                given = list(fits(options.fits or FITS))
            numbers[dtype] = compare(given, *rest)
    if options.json:
        options.json.write_text(json.dumps(numbers, indent=1))


if __name__ == "__main__":
    main()
