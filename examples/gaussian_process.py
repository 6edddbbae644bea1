"""Hyperparameters of a Gaussian process
=====================================

What Rprop is often chosen for (libgp and limbo use it): twelve hyperparameters, an exact gradient,
and a Cholesky factorization for each evaluation. The data are scikit-learn's diabetes: 442
patients, 10 inputs, a lengthscale for each. From one start Rprop is ahead of L-BFGS, from the
other it catches up. It needs no line search.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
import scipy.optimize
from jax.flatten_util import ravel_pytree
from jax.scipy.stats import multivariate_normal
from sklearn.datasets import load_diabetes
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, WhiteKernel

import optax_rprop

jax.config.update("jax_enable_x64", True)

EVALUATIONS = 40
inputs, targets = load_diabetes(return_X_y=True)
inputs = (inputs - inputs.mean(axis=0)) / inputs.std(axis=0)
targets = (targets - targets.mean()) / targets.std()


@jax.jit
@jax.value_and_grad
def negative_log_likelihood(params):  # Rasmussen & Williams 2006, equation 2.30
    scaled = inputs / jnp.exp(params["log_lengthscales"])
    squares = jnp.sum(scaled**2, axis=1)
    half_squared_distances = (squares[:, None] + squares) / 2 - scaled @ scaled.T
    kernel = jnp.exp(2 * params["log_amplitude"] - half_squared_distances)
    noise = jnp.exp(2 * params["log_noise"]) * jnp.eye(len(inputs))
    return -multivariate_normal.logpdf(targets, jnp.zeros_like(targets), kernel + noise)


def fit(optimizer, params):
    """One evaluation a step: the value of each."""

    def step(carry, _):
        params, opt_state = carry
        value, gradient = negative_log_likelihood(params)
        updates, opt_state = optimizer.update(gradient, opt_state, params, value=value)
        return (optax.apply_updates(params, updates), opt_state), value

    optimizer = optax.with_extra_args_support(optimizer)
    return np.array(jax.lax.scan(step, (params, optimizer.init(params)), length=EVALUATIONS)[1])


def fit_lbfgs(params):
    """SciPy's L-BFGS-B: the value of each evaluation, those within line searches too."""
    flat, unravel = ravel_pytree(params)
    values = []

    def evaluate(flat):
        value, gradient = negative_log_likelihood(unravel(flat))
        values.append(float(value))
        return value, ravel_pytree(gradient)[0]

    options = {"maxfun": EVALUATIONS}
    scipy.optimize.minimize(evaluate, flat, jac=True, method="L-BFGS-B", options=options)
    return values[:EVALUATIONS]


# %%
# Two starts: all hyperparameters at 1; then lengthscales at 3 and the noise at 0.3.
BEST = 478.426  # of a longer run
figure, panels = plt.subplots(1, 2, figsize=(10, 4.2), sharey=True, layout="constrained")
for panel, lengthscale, noise in zip(panels, (1.0, 3.0), (1.0, 0.3), strict=True):
    params = {
        "log_lengthscales": jnp.full(10, jnp.log(lengthscale)),
        "log_amplitude": jnp.zeros(()),
        "log_noise": jnp.log(noise),
    }
    kernel = RBF(np.full(10, lengthscale)) + WhiteKernel(noise**2)
    peer = GaussianProcessRegressor(kernel, alpha=0, optimizer=None).fit(inputs, targets)
    values = {
        "irprop_plus(0.1)": fit(optax_rprop.irprop_plus(0.1, undo_nonfinite=True), params),
        "adam(0.1)": fit(optax.adam(0.1), params),
        "adam(0.3)": fit(optax.adam(0.3), params),
        "L-BFGS": fit_lbfgs(params),
    }
    lowest = {name: np.minimum.accumulate(of_name) for name, of_name in values.items()}
    title = f"lengthscales from {lengthscale:g}, noise from {noise:g}"
    print(f"{title}: negative log likelihood after 10, 20, 30 and 40 evaluations")
    for name, color in zip(lowest, ("red", "blue", "cyan", "gray"), strict=True):
        print(f"{name:20}" + "".join(f"{value:10.3f}" for value in lowest[name][9::10]))
        assert abs(values[name][0] + peer.log_marginal_likelihood_value_) < 1e-6
        assert lowest["irprop_plus(0.1)"][-1] < lowest[name][-1] + 0.01
        panel.semilogy(lowest[name] - BEST, color=f"tab:{color}", lw=2, label=name)
    assert lowest["irprop_plus(0.1)"][-1] < BEST + 0.01
    panel.set(title=title, xlabel="evaluations of likelihood and gradient", ylim=(1e-3, 1e3))
assert lowest["L-BFGS"][9] < lowest["irprop_plus(0.1)"][9]
panels[0].set_ylabel("negative log likelihood above the best")
panels[1].legend()
Path("figures").mkdir(exist_ok=True)
figure.savefig("figures/gaussian_process.png")
