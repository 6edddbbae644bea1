"""Fits that users bring: real data, or a published model with data drawn from it.

Networks and the PINN are float32, all others float64. Client libraries are imported inside the
functions, so that a missing one leaves out its problems only.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.nn import log_softmax, logsumexp, softplus
from sklearn import datasets

PROBLEMS = {}


class Problem(NamedTuple):
    """A loss of a pytree, two starts, and how many gradients there are for each."""

    loss: Callable[[Any], jax.Array]
    starts: tuple[Any, Any]
    budget: int = 300
    default: tuple[str, Callable, float] | None = None  # a library's optimizer, and its rate
    box: tuple[Any, Any] | None = None  # the lower and the upper bounds


def problem(function):
    PROBLEMS[function.__name__] = function
    return function


def standardised(x):
    return (x - x.mean(0)) / x.std(0)


def diabetes():
    """Ten columns of 442 patients, as measured, and the progression a year later (standardised)."""
    x, y = datasets.load_diabetes(return_X_y=True, scaled=False)
    return x, standardised(y)


def digits():
    """1,797 images of 64 pixels in [0, 1], and what they show."""
    x, y = datasets.load_digits(return_X_y=True)
    return (x / 16).astype(np.float32), y


def layers(seed, *sizes, dtype=jnp.float32):
    """Weights and biases of a network at its start."""
    keys = jax.random.split(jax.random.key(seed), len(sizes) - 1)
    init = jax.nn.initializers.glorot_normal()
    pairs = zip(keys, sizes[:-1], sizes[1:], strict=True)
    return [(init(key, pair, dtype), jnp.zeros(pair[1], dtype)) for key, *pair in pairs]


def network(layers, x, activation=jnp.tanh):
    for weight, bias in layers[:-1]:
        x = activation(x @ weight + bias)
    weight, bias = layers[-1]
    return x @ weight + bias


def cross_entropy(logits, labels, params, penalty):
    """With a penalty on the squared parameters, as without it the loss would round to 0."""
    squares = sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(params))
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return losses.mean() + penalty * squares


# Gaussian processes


@problem
def gp_co2():
    """CO2 at Mauna Loa from 1975, every second month: trend, season, irregularities, noise.

    The kernel of Rasmussen and Williams 2006, section 5.4.3, with tinygp; logarithms.
    """
    import statsmodels.api as sm
    from tinygp import GaussianProcess
    from tinygp.kernels import ExpSineSquared, ExpSquared, RationalQuadratic

    weekly = sm.datasets.co2.load_pandas().data.co2.dropna()
    months = weekly["1975":].resample("2MS").mean()
    t, y = np.arange(len(months)) / 6, np.asarray(months - months.mean())

    def loss(logs):
        sizes, lengths, (gamma, alpha, noise) = jnp.split(jnp.exp(logs), (4, 8))
        parts = (
            ExpSquared(lengths[0]),
            ExpSquared(lengths[1]) * ExpSineSquared(scale=1.0, gamma=gamma),
            RationalQuadratic(lengths[2], alpha=alpha),
            ExpSquared(lengths[3]),
        )
        kernel = sum(size**2 * part for size, part in zip(sizes, parts, strict=True))
        return -GaussianProcess(kernel, t, diag=noise**2).log_probability(y)

    guess = [50.0, 2.0, 0.5, 0.2, 50.0, 100.0, 1.0, 0.1, 2.0, 1.0, 0.2]
    return Problem(loss, (np.log(guess), np.zeros(11)))


@problem
def gp_ard():
    """Diabetes, every second patient: an amplitude, the noise, and a length for each column.

    They are softplus of the parameters, as in GPJax.
    """
    x, y = diabetes()
    x, y = jnp.asarray(standardised(x)[::2]), jnp.asarray(y[::2])

    def loss(raw):
        amplitude, noise, lengths = jnp.split(softplus(raw), (1, 2))
        squared = jnp.sum(((x[:, None] - x) / lengths) ** 2, -1)
        covariance = amplitude**2 * jnp.exp(-squared / 2) + noise**2 * jnp.eye(len(y))
        factor = jnp.linalg.cholesky(covariance)
        white = jax.scipy.linalg.solve_triangular(factor, y, lower=True)
        return white @ white / 2 + jnp.log(jnp.diag(factor)).sum()

    starts = np.ones(12), np.array([1.0, 0.1, *[5.0] * 10])
    starts = tuple(np.log(np.expm1(start)) for start in starts)
    return Problem(loss, starts, default=("GPJax: adam(0.01)", optax.adam, 0.01))


# NumPyro, the most probable parameters


def numpyro_problem(model, *data):
    """The potential energy of a model, and two of NumPyro's random starts."""
    from numpyro.infer.util import initialize_model

    infos = [initialize_model(jax.random.key(seed), model, model_args=data) for seed in (0, 1)]
    starts = tuple(info.param_info.z for info in infos)
    default = "NumPyro: Adam(0.01)", optax.adam, 0.01
    return Problem(infos[0].potential_fn, starts, default=default)


@problem
def horseshoe():
    """Sparse regression on the diabetes data with squares and products, 64 columns.

    The horseshoe of Carvalho, Polson and Scott 2010, not centred.
    """
    import numpyro
    from numpyro.distributions import Exponential, HalfCauchy, Normal

    x, y = diabetes()
    x = standardised(x)
    products = [x[:, i] * x[:, j] for i in range(10) for j in range(i, 10) if (i, j) != (1, 1)]
    x = standardised(np.column_stack([x, *products]))  # column 1 is binary: no square

    def model():
        with numpyro.plate("columns", x.shape[1]):
            local = numpyro.sample("local", HalfCauchy(1.0))
            unscaled = numpyro.sample("unscaled", Normal(0.0, 1.0))
        overall = numpyro.sample("overall", HalfCauchy(1.0))
        noise = numpyro.sample("noise", Exponential(1.0))
        numpyro.sample("y", Normal(x @ (unscaled * local * overall), noise), obs=y)

    return numpyro_problem(model)


@problem
def robust_raw():
    """Regression with Student's t on the diabetes data as measured: columns from 1 to 300."""
    import numpyro
    from numpyro.distributions import Exponential, Gamma, Normal, StudentT

    x, y = diabetes()

    def model():
        weights = numpyro.sample("weights", Normal(0.0, 10.0).expand([10]).to_event(1))
        bias = numpyro.sample("bias", Normal(0.0, 10.0))
        scale = numpyro.sample("scale", Exponential(1.0))
        freedom = numpyro.sample("freedom", Gamma(2.0, 0.1))
        numpyro.sample("y", StudentT(freedom, x @ weights + bias, scale), obs=y)

    return numpyro_problem(model)._replace(budget=510)


# Science


@problem
def hodgkin_huxley():
    """A squid axon's spikes: conductances (mS/cm2), potentials (mV), capacity (uF/cm2); bounds.

    The model of Hodgkin and Huxley 1952, 25 ms by exponential Euler, and 1 mV of noise.
    """
    dt = 0.05
    current = np.where(np.arange(500) * dt > 2, 10.0, 0.0)

    def ratio(v):  # v / (1 - exp(-v)), whose hole at 0 is mended
        near = jnp.abs(v) < 1e-6
        safe = jnp.where(near, 1.0, v)
        return jnp.where(near, 1 + v / 2, safe / -jnp.expm1(-safe))

    def rates(v):
        """How fast the gates m, h and n open and close."""
        opening = ratio((v + 40) / 10), 0.07 * jnp.exp(-(v + 65) / 20), ratio((v + 55) / 10) / 10
        closing = (
            *(4 * jnp.exp(-(v + 65) / 18), jax.nn.sigmoid((v + 35) / 10)),
            jnp.exp(-(v + 65) / 80) / 8,
        )
        return jnp.stack(opening), jnp.stack(closing)

    def voltage(params):
        maxima, potentials, capacity = params[:3], params[3:6], params[6]

        def step(carry, current):
            v, gates = carry
            opening, closing = rates(v)
            end, rate = opening / (opening + closing), opening + closing
            m, h, n = gates = end + (gates - end) * jnp.exp(-dt * rate)
            conductances = jnp.stack([m**3 * h, n**4, jnp.ones_like(v)]) * maxima
            rate = conductances.sum()
            end = (conductances @ potentials + current) / rate
            v = end + (v - end) * jnp.exp(-dt * rate / capacity)
            return (v, gates), v

        v = jnp.asarray(-65.0)
        opening, closing = rates(v)
        return jax.lax.scan(step, (v, opening / (opening + closing)), current)[1]

    published = np.array([120.0, 36.0, 0.3, 50.0, -77.0, -54.4, 1.0])
    low = np.array([100.0, 30.0, 0.2, 55.0, -80.0, -60.0, 1.1])
    high = np.array([160.0, 30.0, 0.5, 40.0, -70.0, -50.0, 0.8])
    lower = np.array([20.0, 5.0, 0.01, 20.0, -100.0, -80.0, 0.5])
    upper = np.array([400.0, 200.0, 5.0, 80.0, -50.0, -30.0, 2.0])
    measured = voltage(published) + np.random.default_rng(0).normal(size=500)

    def loss(params):
        return jnp.mean((voltage(params) - measured) ** 2)

    return Problem(loss, (low, high), box=(lower, upper))


@problem
def lotka_volterra():
    """Hares and lynxes brought to the Hudson's Bay Company, 1900 to 1920 (Hewitt 1921).

    Diffrax solves the equations; the noise is log-normal. Four rates, the start and two noises,
    all logarithms.
    """
    import diffrax

    hares = "30 47.2 70.2 77.4 36.3 20.6 18.1 21.4 22 25.4 27.1 40.3 57 76.6 52.3 19.5 11.2 7.6"
    lynxes = "4 6.1 9.8 35.2 59.4 41.7 19 13 8.3 9.1 7.4 8 12.3 19.5 45.7 51.1 29.7 15.8"
    hares, lynxes = hares + " 14.6 16.2 24.7", lynxes + " 9.7 10.1 8.6"
    measured = np.log(np.array([hares.split(), lynxes.split()], float).T)

    def field(t, logs, rates):
        hares, lynxes = jnp.exp(logs)
        return jnp.stack([rates[0] - rates[1] * lynxes, rates[2] * hares - rates[3]])

    def loss(logs):
        rates, start, noise = jnp.split(logs, (4, 6))
        span = diffrax.ODETerm(field), diffrax.Tsit5(), 0.0, 20.0, 0.1, start
        years = diffrax.SaveAt(ts=np.arange(21.0))
        found = diffrax.diffeqsolve(*span, args=jnp.exp(rates), saveat=years, max_steps=201)
        left = (found.ys - measured) / jnp.exp(noise)
        return jnp.sum(left**2) / 2 + 21 * noise.sum()

    guesses = (0.5, 0.02, 0.02, 0.5), (1.0, 0.05, 0.02, 1.0)
    starts = tuple(np.array([*np.log(guess), *measured[0], 0.0, 0.0]) for guess in guesses)
    return Problem(loss, starts)


@problem
def neural_ode():
    """A spiral, its field a network with 16 hidden units: Chen et al. 2018, with Diffrax."""
    import diffrax

    def solve(field, args):
        span = diffrax.ODETerm(field), diffrax.Tsit5(), 0.0, 10.0, 0.1, jnp.array([2.0, 0.0])
        times = diffrax.SaveAt(ts=np.linspace(0, 10, 51))
        return diffrax.diffeqsolve(*span, args=args, saveat=times, max_steps=101).ys

    measured = solve(lambda t, y, _: y**3 @ np.array([[-0.1, 2.0], [-2.0, -0.1]]), None)

    def loss(params):
        return jnp.mean((solve(lambda t, y, params: network(params, y**3), params) - measured) ** 2)

    starts = tuple(layers(seed, 2, 16, 2, dtype=float) for seed in (0, 1))
    return Problem(loss, starts, default=("Diffrax: adabelief(3e-3)", optax.adabelief, 3e-3))


@problem
def burgers_pinn():
    """Burgers' equation by a network: Raissi, Perdikaris and Karniadakis 2019. float32."""
    inside = np.random.default_rng(0).uniform([0, -1], [1, 1], (500, 2)).astype(np.float32)
    edge = np.linspace(-1, 1, 50, dtype=np.float32)
    viscosity = np.float32(0.01 / np.pi)

    def loss(params):
        def u(t, x):
            return network(params, jnp.stack([t, x]))[0]

        def residual(t, x):
            u_t, u_x = jax.grad(u, (0, 1))(t, x)
            return u_t + u(t, x) * u_x - viscosity * jax.grad(jax.grad(u, 1), 1)(t, x)

        at_start = jax.vmap(u)(jnp.zeros_like(edge), edge) + jnp.sin(np.float32(np.pi) * edge)
        sides = [jax.vmap(u)((1 + edge) / 2, jnp.full_like(edge, side)) for side in (-1, 1)]
        parts = jax.vmap(residual)(*inside.T), at_start, jnp.stack(sides)
        return sum(jnp.mean(part**2) for part in parts)

    starts = tuple(layers(seed, 2, 20, 20, 20, 1) for seed in (0, 1))
    return Problem(loss, starts, 510, ("jinns, DeepXDE: adam(1e-3)", optax.adam, 1e-3))


@problem
def vqe_ising():
    """The least energy of four spins in a transverse field, by five layers of rotations."""
    spins = 1 - 2 * np.array([*np.ndindex(2, 2, 2, 2)])
    bonds = (spins[:, 1:] * spins[:, :-1]).sum(1).reshape(2, 2, 2, 2)
    down = spins == -1
    signs = np.prod(1 - 2 * (down[:, 1:] & down[:, :-1]), 1).reshape(2, 2, 2, 2)  # controlled Z

    def loss(angles):
        state = jnp.zeros((2, 2, 2, 2)).at[0, 0, 0, 0].set(1)
        for layer in angles:
            for spin, angle in enumerate(layer):
                c, s = jnp.cos(angle / 2), jnp.sin(angle / 2)
                rotated = jnp.tensordot(jnp.array([[c, -s], [s, c]]), state, (1, spin))
                state = jnp.moveaxis(rotated, 0, spin)
            state = state * signs
        flipped = sum(jnp.flip(state, spin) for spin in range(4))
        return -jnp.sum(state**2 * bonds) - jnp.sum(state * flipped)

    rng = np.random.default_rng(0)
    starts = rng.uniform(-0.1, 0.1, (5, 4)), rng.uniform(0, 2 * np.pi, (5, 4))
    return Problem(loss, starts, 150, ("PennyLane: sgd(0.4)", optax.sgd, 0.4))


@problem
def pharmacokinetics():
    """Theophylline in twelve patients: absorption, clearance and volume of each.

    The one-compartment model of Boeckmann, Sheiner and Beal 1994, with its doses, rounded times and
    data drawn from it. Random effects are not centred.
    """
    doses = np.array([[4.02, 4.4, 4.53, 4.4, 5.86, 4, 4.95, 4.53, 3.1, 5.5, 4.92, 5.3]]).T  # mg/kg
    times = np.array([0.25, 0.5, 1, 2, 3.5, 5, 7, 9, 12, 24])  # h

    def concentrations(p):
        logs = p["mean"] + jnp.exp(p["spread"]) * p["effects"]
        absorption, clearance, volume = jnp.exp(logs).T[:, :, None]
        elimination = clearance / volume
        decay = jnp.exp(-elimination * times) - jnp.exp(-absorption * times)
        return doses / volume * absorption / (absorption - elimination) * decay

    rng = np.random.default_rng(0)
    drawn = {"mean": np.log([1.5, 0.04, 0.45]), "spread": np.log([0.6, 0.25, 0.15])}
    drawn["effects"] = rng.normal(size=(12, 3))
    measured = concentrations(drawn) + 0.5 * rng.normal(size=(12, 10))

    def loss(p):
        left = (concentrations(p) - measured) / jnp.exp(p["noise"])
        prior = jnp.sum(p["effects"] ** 2) + jnp.sum((p["spread"] + 1) ** 2)
        return (jnp.sum(left**2) + prior) / 2 + measured.size * p["noise"]

    rest = {"spread": np.full(3, -1.0), "effects": np.zeros((12, 3)), "noise": 0.0}
    means = np.log([1.0, 0.1, 1.0]), np.log([3.0, 0.02, 0.3])
    return Problem(loss, tuple({"mean": mean, **rest} for mean in means))


@problem
def xps_spectrum():
    """Three peaks of carbon, pseudo-Voigt on a sloping background: eV and counts; bounds."""
    energy = np.arange(281, 293, 0.05)

    def counts(params):
        position, height, width, lorentz = params[:12].reshape(4, 3, 1)
        offset = (energy - position) / (width / 2)
        shape = lorentz / (1 + offset**2) + (1 - lorentz) * jnp.exp2(-(offset**2))
        return jnp.sum(height * shape, 0) + params[12] + params[13] * (energy - 281)

    def params(position, height, width, lorentz, level, slope):
        peaks = (np.broadcast_to(part, 3) for part in (position, height, width, lorentz))
        return np.array([*np.concatenate([*peaks]), level, slope], float)

    truth = params([284.8, 286.3, 288.9], [12e3, 4e3, 2.5e3], [1.1, 1.3, 1.2], 0.3, 900, 40)
    measured = np.random.default_rng(0).poisson(counts(truth)).astype(float)
    even = params([284.5, 286.0, 288.5], 5e3, 1.5, 0.5, 1500, 0)
    broad = params([285.0, 287.0, 289.5], [9e3, 6e3, 1e3], 2.5, 0.1, 500, 100)
    box = params(281, 0, 0.3, 0, 0, -500), params(293, 1e5, 5, 1, 1e4, 500)

    def loss(params):
        return jnp.sum((counts(params) - measured) ** 2 / measured) / 2

    return Problem(loss, (even, broad), box=box)


@problem
def hmm_sunspots():
    """The yearly sunspots of 1700 to 2008: a hidden Markov model of four Poisson rates."""
    import statsmodels.api as sm

    counts = np.round(np.asarray(sm.datasets.sunspots.load_pandas().data.SUNACTIVITY))[:, None]

    def loss(p):
        emitted = jax.scipy.stats.poisson.logpmf(counts, jnp.exp(p["log_rates"]))
        moves = log_softmax(p["transitions"], -1)

        def step(forward, emitted):
            return logsumexp(forward[:, None] + moves, 0) + emitted, None

        first = log_softmax(p["initial"]) + emitted[0]
        return -logsumexp(jax.lax.scan(step, first, emitted[1:])[0])

    def start(stay, *rates):
        return {"log_rates": np.log(rates), "transitions": stay * np.eye(4), "initial": np.zeros(4)}

    starts = start(2.0, 5.0, 30.0, 70.0, 120.0), start(0.5, 40.0, 45.0, 50.0, 55.0)
    return Problem(loss, starts, default=("dynamax: adam(1e-3)", optax.adam, 1e-3))


@problem
def matrix_factorisation():
    """300 digits from half of their pixels, by rank 8 with a small penalty."""
    rng = np.random.default_rng(0)
    x = digits()[0][:300].astype(float)
    seen = rng.random(x.shape) < 0.5

    def loss(p):
        left = jnp.where(seen, p["images"] @ p["pixels"] - x, 0)
        return jnp.sum(left**2) / 2 + 0.05 * sum(jnp.sum(v**2) for v in p.values())

    start = {"images": rng.normal(size=(300, 8)), "pixels": rng.normal(size=(8, 64))}
    return Problem(loss, (jax.tree.map(lambda v: 0.1 * v, start), start))


# Classifiers and networks


def logistic_problem(x, y, other_start, budget):
    """Penalised as by scikit-learn, whose solver is SciPy's L-BFGS-B."""

    def loss(weights):
        logits = x @ weights[1:] + weights[0]
        return jnp.sum(softplus(logits) - y * logits) + weights[1:] @ weights[1:] / 2

    return Problem(loss, (np.zeros(31), other_start), budget)


@problem
def logistic():
    """Breast cancer, 30 standardised columns."""
    x, y = datasets.load_breast_cancer(return_X_y=True)
    return logistic_problem(standardised(x), y, np.random.default_rng(0).normal(size=31), 150)


@problem
def logistic_raw():
    """Breast cancer, 30 columns as measured: from 0.001 to 4,000."""
    x, y = datasets.load_breast_cancer(return_X_y=True)
    return logistic_problem(x, y, 1e-3 * np.random.default_rng(0).normal(size=31), 510)


def network_problem(loss, start):
    default = "Flax, scikit-learn: adam(1e-3)", optax.adam, 1e-3
    return Problem(loss, (start(0), start(1)), default=default)


def classifier(activation, penalty):
    """Digits, with one hidden layer of 32, and a penalty."""
    x, y = digits()

    def loss(params):
        return cross_entropy(network(params, x, activation), y, params, penalty)

    return network_problem(loss, lambda seed: layers(seed, 64, 32, 10))


def regression(activation, *sizes):
    """Diabetes, with hidden layers of these sizes."""
    x, y = diabetes()
    x, y = standardised(x).astype(np.float32), y.astype(np.float32)

    def loss(params):
        return jnp.mean((network(params, x, activation)[:, 0] - y) ** 2)

    return network_problem(loss, lambda seed: layers(seed, 10, *sizes, 1))


PROBLEMS |= {  # all float32
    "relu_network": functools.partial(classifier, jax.nn.relu, 1e-4),
    "tanh_network": functools.partial(regression, jnp.tanh, 32),
    "tanh_network_l2": functools.partial(classifier, jnp.tanh, 1e-3),
    "six_layers": functools.partial(regression, jax.nn.relu, *[32] * 6),
}


@problem
def transformer():
    """300 digits read as eight rows: one block, two heads, 16 channels, penalty 1e-4. float32."""
    images, labels = digits()
    rows, labels = images[:300].reshape(-1, 8, 8), labels[:300]

    def norm(x):
        return jax.nn.standardize(x, axis=-1, epsilon=1e-5)

    def loss(p):
        x = network(p["embed"], rows) + p["places"]
        heads = network(p["attention"], norm(x)).reshape(-1, 8, 3, 2, 8)
        mixed = jax.nn.dot_product_attention(*jnp.moveaxis(heads, 2, 0)).reshape(x.shape)
        x = x + network(p["mix"], mixed)
        x = x + network(p["block"], norm(x), jax.nn.gelu)
        return cross_entropy(network(p["output"], norm(x).mean(1)), labels, p, 1e-4)

    sizes = {"embed": (8, 16), "attention": (16, 48), "mix": (16, 16)}
    sizes |= {"block": (16, 32, 16), "output": (16, 10)}

    def start(seed):
        drawn = {name: layers(10 * seed + i, *own) for i, (name, own) in enumerate(sizes.items())}
        return drawn | {"places": 0.1 * jax.random.normal(jax.random.key(seed), (8, 16), "float32")}

    return network_problem(loss, start)
