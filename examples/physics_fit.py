"""A physics fit: parameters from 0.0005 to 2000
=============================================

``rprop_lbfgs`` with bounds finds three parameters from all of 50 starts, half of them within 25
evaluations.

An enzyme consumes its substrate, ``dS/dt = -Vmax S / (Km + S)``; a detector counts ``gain * S``.
Starts are wrong by factors of 2 to 5. Lower bounds are a tenth of the start.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
import scipy

from optax_rprop import rprop_lbfgs, rprop_momentum

jax.config.update("jax_enable_x64", True)

EVALUATIONS, STARTS, TIMES = 400, 50, np.linspace(0, 5e5, 100)
TRUTH = {"Vmax": 5e-4, "Km": 30.0, "gain": 2e3}


def signal(params):  # gain * S, where S + Km log S = 100 + Km log 100 - Vmax t: Newton's method
    v_max, k_m, gain = (jnp.expand_dims(params[name], -1) for name in TRUTH)
    level = 100 + k_m * np.log(100) - v_max * TIMES
    log_s = jnp.full_like(level, np.log(100))
    for _ in range(9):
        log_s -= (jnp.exp(log_s) + k_m * log_s - level) / (jnp.exp(log_s) + k_m)
    return gain * jnp.exp(log_s)


closed_form = scipy.special.lambertw(100 / 30 * np.exp((100 - 5e-4 * TIMES) / 30)).real
assert abs(signal(TRUTH) - 2e3 * 30 * closed_form).max() < 1e-9  # of 200,000
random = np.random.default_rng(0)
measured = signal(TRUTH) + 2e3 * random.normal(size=len(TIMES))
factors = random.uniform(2, 5, (3, STARTS)) ** random.choice([-1, 1], (3, STARTS))
starts = dict(zip(TRUTH, factors * np.c_[list(TRUTH.values())], strict=True))


def residuals(params):
    return (signal(params) - measured) / 2e3


# %%
# A fit has arrived when it describes the data as well as the truth does. All starts run at once.
def loss(params):
    return jnp.mean(residuals(params) ** 2)


def arrivals(make):
    """Whether each fit has arrived, after each evaluation."""

    def step(carry, _):
        params, opt_state, lower = carry
        value, gradient = jax.value_and_grad(loss)(params)
        updates, opt_state = make(lower).update(gradient, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state, lower), value <= loss(TRUTH)

    def run(start):
        lower = jax.tree.map(lambda x: x / 10, start)
        first = start, make(lower).init(start), lower
        return jax.lax.scan(step, first, length=EVALUATIONS)[1]

    return np.logical_or.accumulate(jax.jit(jax.vmap(run))(starts).T)


fits = {
    "rprop_lbfgs, bounds": arrivals(lambda lower: rprop_lbfgs(lower=lower)),
    "rprop_lbfgs": arrivals(lambda _: rprop_lbfgs()),
    "rprop_momentum, bounds": arrivals(lambda lower: rprop_momentum(lower=lower)),
    **{f"adam({rate:g})": arrivals(lambda _, r=rate: optax.adam(r)) for rate in (0.001, 0.1, 10.0)},
}

# %%
figure, axes = plt.subplots(figsize=(6.5, 4.5), layout="constrained")
print(f"{'':36}starts arrived   half of them after")
for name, arrived in fits.items():
    share = arrived.mean(axis=1)
    half = np.searchsorted(share, 0.5) + 1 if share[-1] >= 0.5 else "-"
    print(f"{name:36}{share[-1] * STARTS:8g} of {STARTS}{half:>21}")
    axes.semilogx(1 + np.arange(EVALUATIONS), share, lw=2, label=name)
assert fits["rprop_lbfgs, bounds"][-1].all()
assert fits["rprop_lbfgs, bounds"][30].mean() > 0.5
axes.set(xlabel="evaluations", ylabel="share of starts that arrived", xlim=(3, EVALUATIONS))
axes.legend(loc="upper left")
Path("figures").mkdir(exist_ok=True)
figure.savefig("figures/physics_fit.png")
print("Plot: figures/physics_fit.png")
