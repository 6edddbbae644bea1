"""Step sizes and their limits given per weight: numbers, arrays and pytree prefixes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import optax_rprop
from helpers import streams

PARAMS = {"layer": {"w": jnp.zeros((2, 3)), "b": jnp.zeros(3)}, "scale": jnp.zeros(())}
GRADIENTS = streams.gradients(60, 10, np.float32, (-3, 3))
LOSSES = np.random.default_rng(1).standard_normal(60).astype(np.float32)


def as_tree(rows):
    """Ten numbers a row, as gradients of PARAMS."""
    return {
        "layer": {"w": rows[..., :6].reshape(*rows.shape[:-1], 2, 3), "b": rows[..., 6:9]},
        "scale": rows[..., 9],
    }


def in_a_row(tree):
    layer = tree["layer"]
    steps = len(tree["scale"])
    return jnp.concatenate(
        [layer["w"].reshape(steps, 6), layer["b"], tree["scale"][:, None]], axis=1
    )


# A prefix, and the ten numbers that it stands for.
PREFIXES = [
    (0.5, [0.5] * 10),
    ({"layer": 0.5, "scale": 0.1}, [0.5] * 9 + [0.1]),
    (
        {"layer": {"w": np.float32([[0.1], [0.2]]), "b": 0.3}, "scale": jnp.float32(0.4)},
        [0.1, 0.1, 0.1, 0.2, 0.2, 0.2, 0.3, 0.3, 0.3, 0.4],
    ),
    (
        {
            "layer": {"w": jnp.float32([0.1, 0.2, 0.3]), "b": np.float32([0.5, 0.6, 0.7])},
            "scale": 1,
        },
        [0.1, 0.2, 0.3, 0.1, 0.2, 0.3, 0.5, 0.6, 0.7, 1.0],
    ),
]


# Each argument's numbers are these times a power of two: so float32 and Python keep them equal,
# step sizes start between their limits, and reach both.
SCALES = {
    "learning_rate": 1.0,
    "eta_minus": 0.5,
    "eta_plus": 16.0,
    "min_step_size": 1 / 16,
    "max_step_size": 16.0,
}


@pytest.mark.parametrize("turn", range(len(PREFIXES)))
def test_a_prefix_is_each_weights_own_number(turn):
    """Bit-equal to ten optimizers of one weight each; by turns, each argument has each prefix.

    With the rule that has all: of a prefix, every rule sees what one leaf's numbers are.
    """
    prefixes, numbers = {}, {}
    for place, (argument, scale) in enumerate(SCALES.items()):
        prefix, own = PREFIXES[(place + turn) % len(PREFIXES)]
        prefixes[argument] = jax.tree.map(lambda number, scale=scale: number * scale, prefix)
        numbers[argument] = jnp.asarray(own, jnp.float32) * scale
    make = optax_rprop.irprop_plus
    together = streams.run(make(**prefixes), PARAMS, as_tree(GRADIENTS), LOSSES)
    alone = jax.vmap(
        lambda given, gradients: streams.run(make(**given), jnp.zeros(()), gradients, LOSSES),
        out_axes=1,
    )(numbers, GRADIENTS.T)
    for got, wanted in zip(together, alone, strict=True):
        streams.assert_same_bits(in_a_row(got), wanted)


@pytest.mark.parametrize("argument", ["learning_rate", "min_step_size", "max_step_size"])
@pytest.mark.parametrize(
    ("prefix", "message"),
    [
        ({}, r"{} has no value for parameter \['layer'\]\['b'\]"),
        ({"layer": 0.5}, r"{} has no value for parameter \['scale'\]; a prefix .* reach each"),
        (
            {"layer": {"w": 0.5}, "scale": 0.5},
            r"{} has no value for parameter \['layer'\]\['b'\]",
        ),
        (
            {"layer": 0.5, "scale": 0.5, "bias": 0.5},
            r"{}\['bias'\] belongs to no parameter; the parameters are \['layer'\]\['b'\]",
        ),
        (
            {"layer": {"w": 0.5, "b": np.ones(2)}, "scale": 0.5},
            r"{}\['layer'\]\['b'\] has shape \(2,\).* broadcast to parameter \['layer'\]\['b'\]",
        ),
        (
            {"layer": 0.5, "scale": np.ones(1)},
            r"{}\['scale'\] has shape \(1,\), which does not broadcast to .* of shape \(\)",
        ),
        (np.full((2, 3), 0.5), r"{} has shape \(2, 3\), which does not broadcast to .*\['b'\]"),
    ],
)
def test_a_prefix_that_does_not_fit(argument, prefix, message):
    with pytest.raises(ValueError, match=message.format(argument)):
        optax_rprop.rprop(**{"learning_rate": 0.5, argument: prefix}).init(PARAMS)


def test_numbers_compile_to_the_same_step():
    """A prefix of equal numbers costs nothing: the program is the plain one."""

    def lowered(eta_plus):
        optimizer = optax_rprop.rprop(eta_plus=eta_plus)
        return jax.jit(optimizer.update).lower(PARAMS, optimizer.init(PARAMS)).as_text()

    assert lowered(1.3) == lowered({"layer": 1.3, "scale": 1.3})


def test_a_whole_array_of_first_steps_is_not_kept():
    """The state has buffers of its own: donating it leaves the user's array alone."""
    rates = jnp.full(3, 0.25)
    optimizer = optax_rprop.rprop(rates)
    state = optimizer.init(jnp.zeros(3))
    jax.jit(optimizer.update, donate_argnums=1)(jnp.ones(3), state)
    np.testing.assert_array_equal(rates, [0.25] * 3)


def test_complex_parameters():
    optimizer = optax_rprop.rprop({"z": np.float32([0.5, 0.25])})
    params = {"z": jnp.zeros(2, complex)}
    updates, _ = optimizer.update({"z": jnp.array([1 + 1j, 1 - 1j])}, optimizer.init(params))
    np.testing.assert_array_equal(updates["z"], [-0.5 - 0.5j, -0.25 + 0.25j])


@pytest.mark.parametrize("argument", ["learning_rate", "lower"])
def test_a_list_that_is_too_short(argument):
    """Not a box for the first alone: keys may be left out of a dict, but not places of a list."""
    message = rf"{argument} is a list of 1, for 2 parameters; give each a value"
    with pytest.raises(ValueError, match=message):
        optax_rprop.rprop(**{argument: [0.5]}).init([jnp.ones(2), jnp.ones(3)])
    optax_rprop.rprop(lower=[0.5, None]).init([jnp.ones(2), jnp.zeros(3)])
