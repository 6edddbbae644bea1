"""Trains with every optimizer where the packages named as arguments cannot be imported."""

import sys


class Absent:
    """Finds no module of the packages named."""

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in sys.argv[1:]:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


sys.meta_path.insert(0, Absent())

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402

import optax_rprop  # noqa: E402

names = "rprop", "irprop_minus", "irprop_plus", "rprop_plus", "rprop_minus", "shark_irprop_minus"
for name in names:
    optimizer = getattr(optax_rprop, name)(0.1)
    params = jnp.array([3.0, -2.0])
    state = optimizer.init(params)
    for _ in range(50):
        loss, gradient = jax.value_and_grad(lambda params: jnp.sum(params**2))(params)
        updates, state = optimizer.update(gradient, state, params, value=loss)
        params += updates
    print(name, jnp.abs(params).max())
