"""The CUTEst problems of sif2jax, imported without waiting a minute."""

import sys
import types


class Empty(types.ModuleType):
    """In place of a module: each of its names is an empty tuple, which may be called."""

    def __getattr__(self, name):
        return type(name, (tuple,), {"__call__": lambda self: self})()


def problems():
    """Yields every problem once."""
    # Constrained problems are not used, take a minute to import and switch to float64.
    unused = "sif2jax.cutest._constrained_minimisation"
    sys.modules[unused] = Empty(unused)
    from sif2jax import cutest

    del sys.modules[unused]

    every = cutest.unconstrained_minimisation_problems
    every += cutest.bounded_minimisation_problems + cutest.bounded_quadratic_problems
    yield from {problem.name: problem for problem in every}.values()
