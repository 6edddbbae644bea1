"""How many programs are compiled outside jit: a model has hundreds of shapes."""

import jax
import jax.numpy as jnp
import pytest

import optax_rprop

SHAPES = 5


@pytest.fixture
def params():
    """Of shapes of which nothing else here has compiled anything."""
    jax.clear_caches()
    return {f"{i}": jnp.zeros((i + 3, 7)) for i in range(SHAPES)}


@pytest.fixture
def compiled(caplog):
    """Counts the programs that a call compiles."""

    def count(function, *given):
        caplog.clear()
        with jax.log_compiles():
            result = jax.block_until_ready(function(*given))
        return caplog.text.count("Finished XLA compilation"), result

    return count


def test_it_counts(params, compiled):
    assert compiled(lambda: jax.tree.map(jnp.sin, params))[0] == SHAPES


@pytest.mark.parametrize("options", [{}, {"upper": 1.0}], ids=str)
def test_init_with_a_number_compiles_nothing_of_its_own(options, params, compiled):
    """The parameters, made by zeros, have compiled the program that fills such an array."""
    programs, _ = compiled(optax_rprop.irprop_minus(**options).init, params)
    assert programs == 0
    programs, _ = compiled(optax_rprop.irprop_minus(0.5, **options).init, params)
    assert programs == 0


def test_init_by_scale_compiles_once_a_shape(params, compiled):
    programs, _ = compiled(optax_rprop.rprop_momentum().init, params)
    assert programs <= SHAPES + 2  # one for the scalars, one for the typical size
    first = jax.tree.map(lambda leaf: 0.1 + leaf, params)
    programs, _ = compiled(optax_rprop.rprop(first).init, params)
    assert programs <= SHAPES


def test_a_copy_of_the_parameters_is_a_program(params, compiled):
    programs, _ = compiled(optax_rprop.rprop(undo_nonfinite=True).init, params)
    assert programs <= SHAPES + 1


@pytest.mark.parametrize("name", ["irprop_minus", "rprop_momentum"])
def test_the_second_update_compiles_nothing_and_readers_once_a_shape(name, params, compiled):
    optimizer = getattr(optax_rprop, name)()
    state = optimizer.init(params)
    _, (_, state) = compiled(optimizer.update, params, state, params)
    assert compiled(optimizer.update, params, state, params)[0] == 0
    for read in (
        optax_rprop.step_sizes,
        optax_rprop.prev_signs,
        lambda state: optax_rprop.converged(state, 1e-3),
    ):
        # `converged` also puts the leaves' answers together: five small programs in all.
        assert compiled(read, state)[0] <= SHAPES + 5
        assert compiled(read, state)[0] == 0
    state = optimizer.init(params)[0]
    given = optax_rprop.step_sizes(state), optax_rprop.prev_signs(state)
    # And the conversion of the signs' type.
    assert compiled(optax_rprop.ScaleByRpropState.from_step_sizes, *given)[0] <= 2 * SHAPES
    assert compiled(optax_rprop.ScaleByRpropState.from_step_sizes, *given)[0] == 0
