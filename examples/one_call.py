"""A fit in one call
=================

One call of ``optimistix.minimise`` finds two half-lives in the counts of a radioactive sample.

Activated silver decays as two isotopes at once, above a constant background. Optimistix runs the
loop, and ``RpropMinimiser`` stops by itself: the call has a tolerance and bounds, but no learning
rate. The data are table 8.1 of Bevington and Robinson, *Data Reduction and Error Analysis for the
Physical Sciences*: counts in steps of 15 seconds.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optimistix
from jax.flatten_util import ravel_pytree

from optax_rprop.optimistix import RpropMinimiser

jax.config.update("jax_enable_x64", True)

TABLE = """775 479 380 302 185 157 137 119 110 89 74 61 66 68 48 54 51 46 55 29 28 37 49 26 35 29 31
    24 25 35 24 30 26 28 21 18 20 27 17 17 14 17 24 11 22 17 12 10 13 16 9 9 14 21 17 13 12 18 10"""
counts = jnp.array([float(count) for count in TABLE.split()])
times = 15.0 * jnp.arange(1, 60)


def rates(params, times):
    decays = params["amplitude"] * 2 ** (-times[:, None] / params["half_life"])
    return params["background"] + decays.sum(1)


def loss(params, counts):
    """The negative log-likelihood of Poisson counts; a rate below 0 has none."""
    expected = rates(params, times)
    return jnp.sum(expected - counts * jnp.log(expected))


start = {
    "background": 0.0,
    "amplitude": jnp.array([500.0, 500]),
    "half_life": jnp.array([10.0, 99]),
}
lower = {"background": 0.0, "amplitude": 0.0, "half_life": 1.0}

solver = RpropMinimiser(rtol=1e-4, atol=1e-4, lower=lower)
fit = optimistix.minimise(loss, solver, start, counts, max_steps=1000)

# %%
# Where the loss is a likelihood, its second derivative at the minimum gives the errors. The
# half-lives are those of silver-110, 24.6 s, and silver-108, 142.9 s, as far as 59 counts can tell.
flat, unravel = ravel_pytree(fit.value)
loss_of_flat = jax.jit(lambda flat: loss(unravel(flat), counts))
hessian = jax.hessian(loss_of_flat)(flat)
errors = unravel(jnp.sqrt(jnp.diag(jnp.linalg.inv(hessian))))
labels = [
    f"{name}: half-life {half_life:.1f} ± {error:.1f} s"
    for name, half_life, error in zip(
        ("silver-110", "silver-108"), fit.value["half_life"], errors["half_life"], strict=True
    )
]
print(*labels, f"{fit.stats['num_steps']} evaluations", sep="\n")
assert jnp.all(jnp.abs(fit.value["half_life"] - np.array([24.6, 142.9])) < errors["half_life"])
newton_step = jnp.linalg.solve(hessian, jax.grad(loss_of_flat)(flat))
assert jnp.abs(newton_step).max() < 0.01  # from here to the minimum

# %%
figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
grid = jnp.linspace(15, 885, 400)
axes.errorbar(times, counts, jnp.sqrt(counts), fmt="o", ms=3, color="tab:gray", label="counted")
axes.plot(grid, rates(fit.value, grid), color="tab:red", label="fitted")
for label, amplitude, half_life in zip(
    labels, fit.value["amplitude"], fit.value["half_life"], strict=True
):
    axes.plot(grid, amplitude * 2 ** (-grid / half_life), "--", label=label)
axes.axhline(fit.value["background"], color="black", ls=":", label="background")
axes.set(yscale="log", ylim=(3, 1000), xlabel="time in s", ylabel="counts in 15 s")
axes.set_title("Two half-lives from one call")
axes.legend()
Path("figures").mkdir(exist_ok=True)
figure.savefig("figures/one_call.png")
print("Plot: figures/one_call.png")
