"""The Optimistix minimiser beside others: evaluations, and how far from the minimum it stops.

Every solver is asked for the same tolerance. An evaluation is one of the function, those of line
searches included, with or without its gradient. Run: python benchmarks/minimiser.py
"""

import argparse

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optimistix

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


def solvers(tolerance):
    others = {"rtol": tolerance, "atol": tolerance}
    return {
        "RpropMinimiser": RpropMinimiser(tolerance, tolerance),
        "BFGS": optimistix.BFGS(**others),
        "OptaxMinimiser(adam(0.01))": optimistix.OptaxMinimiser(optax.adam(0.01), **others),
        "OptaxMinimiser(lbfgs())": optimistix.OptaxMinimiser(optax.lbfgs(), **others),
    }


def run(fn, solver, start):
    """The solution, and the number of evaluations."""
    evaluations = []

    def counted(y, args):
        jax.debug.callback(lambda: evaluations.append(1))
        return fn(y)

    solution = optimistix.minimise(counted, solver, start, max_steps=20_000, throw=False)
    jax.block_until_ready(solution.value)
    jax.effects_barrier()
    return solution, len(evaluations)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tolerance", type=float, default=1e-5)
    parser.add_argument("--problems", nargs="+", default=list(PROBLEMS), choices=PROBLEMS)
    arguments = parser.parse_args()
    names = list(solvers(1.0))
    print(f"| tolerance {arguments.tolerance:g} | " + " | ".join(names) + " |")
    print("|---" * (len(names) + 1) + "|")
    for problem in arguments.problems:
        fn, start, minimum = PROBLEMS[problem]
        cells = []
        for solver in solvers(arguments.tolerance).values():
            solution, evaluations = run(fn, solver, start)
            distance = np.abs(solution.value - minimum).max()
            ran_out = solution.result != optimistix.RESULTS.successful
            cells.append(f"{evaluations:,}, {distance:.0e}" + ", no success" * bool(ran_out))
        print(f"| {problem} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
