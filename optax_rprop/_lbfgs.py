"""Limited-memory BFGS on lists of real arrays: pairs, a diagonal from them, a direction.

A pair is a move s and the change y of the gradient along it. With S and Y the pairs as columns,
oldest first, R the upper triangle of S'Y, E its diagonal, and a diagonal matrix D to begin with,
the inverse Hessian is (Byrd, Nocedal and Schnabel 1994, theorem 2.2)

    H = gamma D + [S, gamma D Y] [ R^-T (E + gamma Y'DY) R^-1   -R^-T ] [     S'     ]
                                 [           -R^-1                0   ] [ gamma Y' D ]

It is the matrix of the two loops of Liu and Nocedal (1989). But H g needs only inner products, all
of them at once, small triangular systems, and one sum of arrays (Chen, Wang and Zhou 2014).
"""

import functools
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy.linalg import solve_triangular

from optax_rprop._dtypes import on_all_devices, over_shards

_LARGE = 2**15  # of a smaller ring a sum is taken, not a product, which compiles ten times as long
Arrays: TypeAlias = list[jax.Array]
each = jax.tree.map  # here of lists: each(f, xs, ys) is [f(x, y), ...]


class Pairs(NamedTuple):
    """A ring of pairs. Its next row is written before it is known whether it counts."""

    moves: Arrays  # (memory_size, *shape)
    changes: Arrays
    next_row: jax.Array
    num_pairs: jax.Array  # how many pairs there are, in the rows before


class Products(NamedTuple):
    """The inner products of pairs, and of pairs with a gradient g."""

    sy: jax.Array  # (memory_size, memory_size): s_i'y_j, of j no older than i
    ydy: jax.Array  # likewise y_i'D y_j
    sg: jax.Array  # (memory_size,): s_i'g
    ydg: jax.Array  # likewise y_i'D g


def write(pairs: Pairs, move: Arrays, change: Arrays) -> Pairs:
    """Writes a pair into the next row, over the oldest if there is no other room."""

    def into(ring: jax.Array, row: jax.Array) -> jax.Array:
        return lax.dynamic_update_index_in_dim(ring, row, pairs.next_row, 0)

    s, y = each(into, pairs.moves, move), each(into, pairs.changes, change)
    num_pairs = jnp.minimum(pairs.num_pairs, len(s[0]) - 1)
    return pairs._replace(moves=s, changes=y, num_pairs=num_pairs)


def multiply(
    pairs: Pairs, sy: jax.Array, ydy: jax.Array, change: Arrays, diagonal: Arrays, gradient: Arrays
) -> Products:
    """All products, from those of older pairs and from the change that was just written."""
    row, new = pairs.next_row, _with_changes(pairs, diagonal, change, sy)
    is_row = jnp.arange(len(sy), dtype=row.dtype) == row
    ydy = jnp.where(is_row[:, None], new[None], ydy)
    return Products(
        jnp.where(is_row[None], _inner(pairs.moves, change, sy)[:, None], sy),
        jnp.where(is_row[None], new[:, None], ydy),
        _inner(pairs.moves, gradient, sy),
        _with_changes(pairs, diagonal, gradient, sy),
    )


def _with_changes(pairs: Pairs, diagonal: Arrays, arrays: Arrays, like: jax.Array) -> jax.Array:
    return _inner(pairs.changes, each(jnp.multiply, diagonal, arrays), like)


def begin(
    pairs: Pairs, counts: jax.Array, products: Products, gradient: Arrays
) -> tuple[Arrays, Products]:
    """A diagonal from the pairs, and the products with it."""
    diagonal = _secants(pairs, counts)
    with_changes = functools.partial(_with_changes, pairs, diagonal, like=products.sy)
    ydy = _of_rows(with_changes, pairs.changes)
    return diagonal, products._replace(ydy=ydy, ydg=with_changes(gradient))


def _of_rows(function: Any, rings: Arrays) -> Any:
    """At once, or one by one where that would take other arrays as large as the rings."""
    are_small = all(ring.size < _LARGE for ring in rings)
    return jax.vmap(function)(rings) if are_small else lax.map(function, rings)


def which_count(pairs: Pairs, newest: jax.Array) -> jax.Array:
    """A mask of rows: all pairs, and the row just written if it is one."""
    rows = len(pairs.moves[0])
    age = (pairs.next_row - jnp.arange(rows, dtype=jnp.int32)) % rows
    return jnp.where(age == 0, newest, age <= pairs.num_pairs)


def _secants(pairs: Pairs, counts: jax.Array) -> Arrays:
    """A diagonal: large for weights that moved far, and whose gradient changed little.

    The sum of a weight's abs(s), by that of its abs(y); 0 for one that never moved, or whose
    gradient never changed.
    """

    def add(sums: list, rows: tuple) -> tuple[list, None]:
        count, *arrays = rows
        return each(lambda x, row: x + count.astype(x.dtype) * abs(row), sums, arrays), None

    rings = [pairs.moves, pairs.changes]
    zeros = each(lambda ring: jnp.zeros_like(ring[0]), rings)
    # A sum over the rows would need arrays as large as the rings.
    (moved, changed), _ = lax.scan(add, zeros, (counts, *rings))

    def of_leaf(a: jax.Array, b: jax.Array) -> jax.Array:
        # One that is infinite, of a nearly flat weight, would make all inner products NaN.
        largest = float(jnp.finfo(a.dtype).max)
        return jnp.where(b > 0, jnp.minimum(a / jnp.where(b > 0, b, 1), largest), 0)

    return each(of_leaf, moved, changed)


def among(
    free: Arrays, pairs: Pairs, counts: jax.Array, products: Products, diagonal: Arrays
) -> tuple[jax.Array, Products]:
    """Which pairs count among free weights alone, and their products."""

    def of_pair(change: Arrays) -> tuple[jax.Array, ...]:
        change = each(lambda f, y: jnp.where(f, y, 0), free, change)
        with_changes = _with_changes(pairs, diagonal, change, products.sy)
        return _inner(pairs.moves, change, products.sy), with_changes

    sy, ydy = _of_rows(of_pair, pairs.changes)
    return counts & (jnp.diag(sy) > 0), products._replace(sy=sy.T, ydy=ydy)


def direction(
    pairs: Pairs, counts: jax.Array, products: Products, diagonal: Arrays, gradient: Arrays
) -> Arrays:
    """-H g, if any pair counts."""
    p, q, gamma = lax.cond(
        jnp.any(counts),
        lambda: _coefficients(pairs.next_row, counts, products),
        lambda: (products.sg, products.ydg, products.sg[0]),  # any would do: no weight follows them
    )

    def of_leaf(s: jax.Array, y: jax.Array, d: jax.Array, g: jax.Array) -> jax.Array:
        return -(gamma.astype(g.dtype) * d * (g - _sum_of(p, y)) + _sum_of(q, s))

    return each(of_leaf, pairs.moves, pairs.changes, diagonal, gradient)


def _coefficients(row: jax.Array, counts: jax.Array, products: Products) -> tuple[jax.Array, ...]:
    """Of -H g = -(gamma D (g - Y p) + S q): p, q and gamma."""
    oldest_first = (row + 1 + jnp.arange(len(counts), dtype=jnp.int32)) % len(counts)
    counts = counts[oldest_first]
    both, own = counts[:, None] & counts[None], jnp.eye(len(counts), dtype=bool)
    sy, ydy = (jnp.where(both, x[oldest_first][:, oldest_first], 0) for x in products[:2])
    sg, ydg = (jnp.where(counts, x[oldest_first], 0) for x in (products.sg, products.ydg))
    newest = jnp.max(jnp.where(counts, jnp.arange(len(counts)), 0))
    gamma = sy[newest, newest] / ydy[newest, newest]

    e, r = jnp.where(own, sy, 0), jnp.where(own & ~both, 1, jnp.triu(sy))
    p = solve_triangular(r, sg)  # R^-1 S'g
    weighted = jnp.matmul(e + gamma * ydy, p, precision="highest")
    q = solve_triangular(r, weighted - gamma * ydg, trans="T")
    p, q = (jnp.zeros_like(x).at[oldest_first].set(x) for x in (p, q))
    return p, q, gamma


def _sum_of(weights: jax.Array, ring: jax.Array) -> jax.Array:
    weights = weights.astype(ring.dtype)
    if ring.size < _LARGE:
        return jnp.sum(weights.reshape(-1, *[1] * (ring.ndim - 1)) * ring, 0)
    return jnp.tensordot(weights, ring, 1, precision="highest")


def _inner(rings: Arrays, others: Arrays, like: jax.Array) -> jax.Array:
    """Inner products of each row with an array; `like` is an array of the state: see `total`."""

    def of_leaf(ring: jax.Array, other: jax.Array) -> jax.Array:
        if ring.size < _LARGE or ring.ndim != 2:  # with more axes, a product copies the ring
            return jnp.sum(ring * other[None], tuple(range(1, ring.ndim)))
        axes = ((1,), (0,)), ((), ())
        return lax.dot_general(ring, other, axes, precision="highest", **on_all_devices(ring))

    return total(each(of_leaf, rings, others), like)


def weigh(
    changes: Arrays, diagonal: Arrays, gradient: Arrays, like: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Y'DY and Y'Dg. As products of matrices: in a batch of problems, sums take far longer."""

    def of_leaf(ring: jax.Array, d: jax.Array, other: jax.Array) -> jax.Array:
        count = ring.ndim - 1
        axes = tuple(range(1, ring.ndim)), tuple(range(other.ndim - count, other.ndim))
        given = {"precision": "highest", **on_all_devices(ring)}
        return lax.dot_general(ring * d[None], other, (axes, ((), ())), **given)

    ydy, ydg = (total(each(of_leaf, changes, diagonal, x), like) for x in (changes, gradient))
    return ydy, ydg


def total(arrays: Arrays, like: jax.Array) -> jax.Array:
    """The sum, in the type of this array of the state, over all shards of one optimizer."""
    # Each leaf over its own shards: one that is whole on all devices counts once.
    numbers = [over_shards(lax.psum, x.astype(like.dtype), like) for x in arrays]
    return functools.reduce(jnp.add, numbers)


def largest(arrays: Arrays, like: jax.Array) -> jax.Array:
    """The largest of all numbers, none of which is below 0, as `total` sums them; 0 of none.

    A NaN counts as infinite: of a large array, XLA's maximum on a CPU leaves it out.
    """
    numbers = [x.astype(like.dtype) for x in arrays]
    numbers = [jnp.max(jnp.where(x == x, x, jnp.inf), initial=0) for x in numbers]
    numbers = [over_shards(lax.pmax, x, like) for x in numbers]
    return functools.reduce(jnp.maximum, numbers, jnp.zeros((), like.dtype))
