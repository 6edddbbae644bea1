"""Where gradients are NaN or infinite at random, training goes on."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

import optax_rprop
from helpers.conformance import NARROW, every_optimizer_but

SMALLEST, LARGEST = 2.0**-10, 8.0  # step sizes that every type holds exactly
STORMS, STORMY, CALM = 12, 30, 100
SHAPES = {"float32": (2, 2), "bfloat16": (3,), "float16": (), "complex64": (3,)}
TARGETS = {
    dtype: jnp.full(shape, 1 + 1j if dtype == "complex64" else 1, dtype)
    for dtype, shape in SHAPES.items()
}


def damage(random, dtype="float32", shape=()):
    """Numbers to add in each storm and step: in the storm, one in five is NaN or infinite."""
    if dtype == "complex64":
        return jax.lax.complex(damage(random, shape=shape), damage(random, shape=shape))
    kinds = random.random((STORMS, STORMY + CALM, *shape))
    kinds[:, STORMY:] = 1
    added = np.select([kinds < 0.1, kinds < 0.15, kinds < 0.2], [np.nan, np.inf, -np.inf], 0)
    return jnp.asarray(added, dtype)


def parts(tree):
    """The real arrays that a tree is made of."""
    for leaf in jax.tree.leaves(tree):
        yield from ([np.real(leaf), np.imag(leaf)] if np.iscomplexobj(leaf) else [leaf])


@every_optimizer_but(NARROW)  # its parameters are not complex
def test_nan_storm(make):
    """Twelve times thirty steps through a storm, and a hundred after it."""
    random = np.random.default_rng(0)
    optimizer = make(0.125, min_step_size=SMALLEST, max_step_size=LARGEST)

    def step(carry, damage):
        params, state = carry
        # Every number is on its way to 1, by the squared distance.
        distances = jax.tree.map(jnp.subtract, params, TARGETS)
        loss = sum(jnp.sum(jnp.abs(x).astype(float) ** 2) for x in distances.values())
        gradients = jax.tree.map(jnp.add, distances, damage[0])
        updates, state = optimizer.update(gradients, state, params, value=loss + damage[1])
        params = optax.apply_updates(params, updates)
        return (params, state), (params, optax_rprop.step_sizes(state))

    start = jax.tree.map(jnp.zeros_like, TARGETS)
    through = jax.vmap(lambda damage: jax.lax.scan(step, (start, optimizer.init(start)), damage)[1])
    on_gradients = {dtype: damage(random, dtype, shape) for dtype, shape in SHAPES.items()}
    params, step_sizes = jax.device_get(jax.jit(through)((on_gradients, damage(random))))
    for numbers in parts(params):
        assert np.isfinite(numbers).all()
        # Four numbers of bfloat16, the coarsest type here, which are 1/128 apart above 1.
        assert (np.abs(numbers[:, -1].astype(float) - 1) < 4 / 128).all()
    for sizes in parts(step_sizes):
        assert ((sizes >= SMALLEST) & (sizes <= LARGEST)).all()
