"""Hyperparameters given per weight: a number, an array, or a pytree prefix."""

from typing import Any

import jax
import numpy as np

from optax_rprop import _checks


def per_leaf(name: str, value: Any, tree: Any) -> list:
    """The part of a hyperparameter that belongs to each leaf.

    Args:
      name: the argument, for errors.
      value: a number or an array for every leaf of `tree`, or a prefix of it: a
        tree with the same keys that may end in a number or an array anywhere.
      tree: the parameters, or a tree of their shapes.

    Returns:
      A list with an element for each leaf of `tree`, which broadcasts to it.

    Raises:
      ValueError: where a key or a shape does not fit; it names the leaf.
    """
    if jax.tree_util.all_leaves([value]) and np.shape(value) == ():
        return [value] * len(jax.tree.leaves(tree))
    given = dict(jax.tree_util.tree_flatten_with_path(value)[0])
    unused = dict(given)
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    values = []
    for path, leaf in leaves:
        start = next((path[:n] for n in range(len(path) + 1) if path[:n] in given), None)
        if start is None:
            raise ValueError(
                f"{name} has no value for parameter {_checks.name_of(path)}; a prefix of the "
                "parameters must reach each of them, and it has "
                f"{', '.join(map(jax.tree_util.keystr, given)) or 'no leaf'}. (A list is a pytree, "
                "no array; None is an empty one: for no bound, give an infinite one.)"
            )
        if not _broadcasts(np.shape(given[start]), np.shape(leaf)):
            raise ValueError(
                f"{name}{jax.tree_util.keystr(start)} has shape {np.shape(given[start])}, which "
                f"does not broadcast to parameter {_checks.name_of(path)} of shape "
                f"{np.shape(leaf)}."
            )
        unused.pop(start, None)
        values.append(given[start])
    if unused and leaves:
        raise ValueError(
            f"{name}{jax.tree_util.keystr(next(iter(unused)))} belongs to no parameter; the "
            f"parameters are {', '.join(_checks.name_of(path) for path, _ in leaves)}. (Inside "
            "optax.masked and the like, give it for those alone that are handed on.)"
        )
    return values


def _broadcasts(shape: tuple[int, ...], target: tuple[int, ...]) -> bool:
    try:
        return np.broadcast_shapes(shape, target) == target
    except ValueError:
        return False
