"""The CUTEst problems of sif2jax, imported without waiting a minute."""

import sys
import types


class Empty(types.ModuleType):
    """In place of a module: each of its names is an empty tuple, which may be called."""

    def __getattr__(self, name):
        return type(name, (tuple,), {"__call__": lambda self: self})()


def problems(quadratic=True):
    """Yields every problem once; the bounded quadratic ones, slow to import, if wanted."""
    # Constrained problems are not used, take a minute to import and switch to float64.
    unused = ["_constrained_minimisation"] + ([] if quadratic else ["_quadratic_problems"])
    stubs = {f"sif2jax.cutest.{name}": Empty(name) for name in unused}
    sys.modules |= stubs
    from sif2jax import cutest

    for name in stubs:
        del sys.modules[name]

    every = cutest.unconstrained_minimisation_problems
    every += cutest.bounded_minimisation_problems + cutest.bounded_quadratic_problems
    yield from {problem.name: problem for problem in every}.values()
