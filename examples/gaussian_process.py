"""Hyperparameters of a Gaussian process
=====================================

``rprop_lbfgs`` fits twelve hyperparameters by maximum likelihood, beside Adam and SciPy's L-BFGS.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
import scipy.optimize
from jax.scipy.stats import multivariate_normal
from sklearn.datasets import load_diabetes
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, WhiteKernel
from sklearn.preprocessing import scale

import optax_rprop

jax.config.update("jax_enable_x64", True)

EVALUATIONS, BEST = 40, 478.426  # the best of a longer run
OPTIMIZERS = {
    "rprop_lbfgs()": optax_rprop.rprop_lbfgs(),
    "rprop_momentum()": optax_rprop.rprop_momentum(),
    "adam(0.1)": optax.adam(0.1),
    "adam(0.3)": optax.adam(0.3),
}
inputs, targets = map(scale, load_diabetes(return_X_y=True))  # 442 patients, ten inputs


@jax.jit
@jax.value_and_grad
def negative_log_likelihood(params):  # Rasmussen & Williams 2006, equation 2.30
    lengthscales, amplitude, noise = jnp.split(jnp.exp(params), [10, 11])
    scaled = inputs / lengthscales
    squares = jnp.sum(scaled**2, axis=1)
    half_squared_distances = (squares[:, None] + squares) / 2 - scaled @ scaled.T
    kernel = amplitude**2 * jnp.exp(-half_squared_distances) + noise**2 * jnp.eye(len(inputs))
    return -multivariate_normal.logpdf(targets, jnp.zeros_like(targets), kernel)


# %%
# Both return the lowest value so far for each evaluation: those within line searches count.
def fit(optimizer, params):
    opt_state, update = optimizer.init(params), jax.jit(optimizer.update)
    values = []
    for _ in range(EVALUATIONS):
        value, gradient = negative_log_likelihood(params)
        values.append(float(value))
        updates, opt_state = update(gradient, opt_state, params)
        params = optax.apply_updates(params, updates)
    return np.minimum.accumulate(values)


def fit_lbfgs(params):
    def evaluate(params):
        value, gradient = negative_log_likelihood(params)
        values.append(float(value))
        return value, gradient

    values = []
    scipy.optimize.fmin_l_bfgs_b(evaluate, params, maxfun=EVALUATIONS)
    return np.minimum.accumulate(values[:EVALUATIONS])


# %%
# Two starts: all hyperparameters at 1; then lengthscales at 3 and the noise at 0.3.
figure, panels = plt.subplots(2, 1, figsize=(6, 8), layout="constrained")
for panel, lengthscale, noise in zip(panels, (1.0, 3.0), (1.0, 0.3), strict=True):
    params = jnp.log(jnp.array(10 * [lengthscale] + [1.0, noise]))
    kernel = RBF(np.full(10, lengthscale)) + WhiteKernel(noise**2)
    peer = GaussianProcessRegressor(kernel, alpha=0, optimizer=None).fit(inputs, targets)
    fits = {name: fit(optimizer, params) for name, optimizer in OPTIMIZERS.items()}
    fits["L-BFGS"] = fit_lbfgs(params)
    panel.set(title=f"lengthscales from {lengthscale:g}, noise from {noise:g}", ylim=(1e-3, 1e3))
    print(f"{panel.get_title()}: negative log likelihood after 10, 20, 30 and 40 evaluations")
    for name, lowest in fits.items():
        print(f"{name:20}" + "".join(f"{value:10.3f}" for value in lowest[9::10]))
        assert abs(lowest[0] + peer.log_marginal_likelihood_value_) < 1e-6
        assert fits["rprop_lbfgs()"][-1] < min(lowest[-1], BEST) + 0.01
        panel.semilogy(lowest - BEST, lw=2, label=name)
    panel.set(xlabel="evaluations", ylabel="negative log likelihood above the best")
panels[1].legend()
Path("figures").mkdir(exist_ok=True)
figure.savefig("figures/gaussian_process.png")
print("Plot: figures/gaussian_process.png")
