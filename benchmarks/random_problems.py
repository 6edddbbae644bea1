"""Random problems in 32 families, with 2 to 50 weights, to test when a minimiser stops.

`problems(36)` lists 1,152 of them, each the same in every run: `fn(y, args)`, a start and bounds.
All of a family share `fn`, so that it compiles once for each shape. Data are float64; to
test float32, cast `args` and `start` first. `nearest_minimum` descends in float64 from where a
solver stopped.
"""

import functools
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp


class Problem(NamedTuple):
    """A function of `y` and `args`, where to start, bounds or None, and the minimum if known."""

    family: str
    fn: Callable[[Any, Any], Any]
    args: dict[str, np.ndarray]
    start: np.ndarray
    lower: np.ndarray | None = None
    upper: np.ndarray | None = None
    minimum: np.ndarray | None = None

    def box(self):
        """The bounds, infinite where there are none."""
        lower = -np.inf if self.lower is None else self.lower
        return lower, np.inf if self.upper is None else self.upper


FAMILIES = {}
# Their losses have no minimum: any success is false.
UNBOUNDED = ("plateau", "separable_classes")


def family(fn, sizes=(2, 3, 5, 10, 20, 50)):
    """Registers what makes the arguments and the start for `fn`."""

    def register(make):
        FAMILIES[make.__name__] = fn, make, sizes
        return make

    return register


def problems(count, families=None):
    """`count` problems of each family."""
    made = []
    for name in families or FAMILIES:
        fn, make, sizes = FAMILIES[name]
        for index in range(count):
            rng = np.random.default_rng([zlib.crc32(name.encode()), index])
            args, start, *others = make(rng, sizes[index % len(sizes)])
            args = {key: np.asarray(value, float) for key, value in args.items()}
            others = dict(zip(("lower", "upper", "minimum"), others, strict=False))
            made.append(Problem(name, fn, args, np.asarray(start, float), **others))
    return made


def rounded(problem, dtype):
    """The same problem, all of its numbers as `dtype` has them."""
    given = problem.args, problem.start, problem.lower, problem.upper
    args, start, lower, upper = jax.tree.map(lambda x: x.astype(dtype).astype(float), given)
    return problem._replace(args=args, start=start, lower=lower, upper=upper)


def rotation(rng, n):
    return np.linalg.qr(rng.normal(size=(n, n)))[0]


def curvatures(rng, n, most=6.0):
    """Of condition 10 to 10**most, in any unit."""
    condition = rng.uniform(1, most)
    powers = rng.uniform(-condition / 2, condition / 2, n)
    powers[:2] = -condition / 2, condition / 2
    return 10 ** (powers + rng.uniform(-2, 2))


def bowl(rng, n, most=6.0):
    """The arguments of a rotated quadratic, and a start."""
    args = {"axes": rotation(rng, n), "c": curvatures(rng, n, most), "end": rng.normal(size=n) * 3}
    return args, rng.normal(size=n) * 3


def inner(y, a):
    """The weights along the axes of a bowl."""
    return a["axes"] @ (y - a["end"])


def table(rng, rows, n, spread=1.0):
    """Correlated columns in units of their own, and weights that suit them."""
    units = 10 ** rng.uniform(-spread, spread, n)
    x = rng.normal(size=(rows, n)) + rng.normal(size=(rows, 1))
    return x * units, rng.normal(size=n) / units / np.sqrt(n)


def squares(y, a):
    z = inner(y, a)
    return (a["c"] * z * z).sum() / 2


@family(squares)
def quadratic(rng, n):
    return bowl(rng, n)


@family(lambda y, a: ((a["root"] @ (y - a["end"])) ** 2).sum(), sizes=(2, 5, 20))
def narrow_valley(rng, n):
    """Of condition 1e4 to 1e6. Its gradient is exact at the end, also with data in float32."""
    stretch = np.sqrt(np.geomspace(1, 10 ** rng.uniform(4, 6), n))[:, None]
    args = {"root": stretch * rotation(rng, n), "end": rng.normal(size=n) * 2}
    return args, rng.normal(size=n) * 2


@family(lambda y, a: ((a["x"] @ y - a["t"]) ** 2).mean(), (3, 5, 10))
def columns_alike(rng, n):
    """Least squares with one flat direction: two columns differ by 1e-2 to 1e-4."""
    x = rng.normal(size=(50, n))
    x[:, -1] = x[:, -2] + 10 ** rng.uniform(-4, -2) * rng.normal(size=50)
    return {"x": x, "t": x @ rng.normal(size=n)}, np.zeros(n)


@family(squares)
def easy_quadratic(rng, n):
    return bowl(rng, n, 2.0)


@family(squares)
def scales(rng, n):
    """Weights of very different sizes."""
    units = 10 ** rng.uniform(-4, 4, n)
    args, start = bowl(rng, n, 3.0)
    return args | {"axes": args["axes"] / units, "end": args["end"] * units}, start * units


@family(squares)
def minimum_at_zero(rng, n):
    """Some weights start at zero, too."""
    args, start = bowl(rng, n, 4.0)
    start[n // 2 :] *= rng.random() < 0.5
    return args | {"end": np.where(rng.random(n) < 0.7, 0, args["end"])}, start


@family(squares)
def quadratic_in_a_box(rng, n):
    args, start = bowl(rng, n, 4.0)
    lower = args["end"] - rng.normal(size=n) * 2
    upper = lower + rng.exponential(size=n) * 3 + 0.1
    return args, np.clip(start, lower, upper), lower, upper


def ripples(y, a):
    return squares(y, a) + 1e-8 * (a["noise"] * jnp.sin(y * a["waves"]) / a["waves"]).sum()


@family(ripples)
def noise(rng, n):
    """Ripples of 1e-8 in the gradient move the minimum by 1e-6: for tolerances above that."""
    args, start = bowl(rng, n, 2.0)
    waves = 10 ** rng.uniform(8, 10, n)
    args |= {"noise": args["c"].max() * rng.normal(size=n), "waves": waves}
    return args, start, None, None, args["end"]


def powers(y, a):
    z = inner(y, a)
    return (a["c"] * z * z / 2 + a["b"] * z**4).sum()


@family(powers)
def quartic(rng, n):
    args, start = bowl(rng, n)
    return args | {"b": args["c"] * 10 ** rng.uniform(-3, 0, n)}, start


@family(powers, (2, 3, 5, 10))
def degenerate_quartic(rng, n):
    """No curvature at the minimum along some axes."""
    args, start = bowl(rng, n, 2.0)
    return args | {"b": args["c"], "c": args["c"] * (rng.random(n) < 0.5)}, start


@family(lambda y, a: (a["b"] * (1 - y[:-1]) ** 2 + a["c"] * (y[1:] - y[:-1] ** 2) ** 2).sum())
def rosenbrock(rng, n):
    return {"b": 1.0, "c": 10 ** rng.uniform(0, 3)}, rng.uniform(-2, 2, n)


@family(FAMILIES["rosenbrock"][0])
def rosenbrock_in_a_box(rng, n):
    lower, upper = rng.uniform(-2, 0.5, n), rng.uniform(0.6, 2, n)
    return {"b": 1.0, "c": 100.0}, rng.uniform(lower, upper), lower, upper


def binary(y, a):
    return jnp.logaddexp(0, -a["t"] * (a["x"] @ y)).mean() + a["decay"] * (y * y).sum()


@family(binary)
def logistic_regression(rng, n):
    x, w = table(rng, 5 * n + 20, n)
    t = np.sign(x @ w * 2 + rng.logistic(size=len(x)))
    return {"x": x, "t": t, "decay": 10 ** rng.uniform(-5, -2)}, rng.normal(size=n) * 0.1


@family(binary, (2, 5, 10))
def separable_classes(rng, n):
    """The minimum is at infinity."""
    x, w = table(rng, 3 * n + 5, n, 0.3)
    return {"x": x, "t": np.sign(x @ w), "decay": 0.0}, rng.normal(size=n) * 0.1


@family(lambda y, a: (jnp.exp(a["x"] @ y) - a["t"] * (a["x"] @ y)).mean())
def poisson_regression(rng, n):
    x, w = table(rng, 5 * n + 20, n)
    return {"x": x, "t": rng.poisson(np.exp(x @ w)) + 0.1}, np.zeros(n)


@family(lambda y, a: a["c"] @ y - a["b"] * jnp.log(1 + a["x"] @ y).sum(), (2, 3, 5, 10, 20))
def barrier(rng, n):
    """The centre of a polytope, which may lie near a side; not a number outside."""
    x = rng.normal(size=(4 * n, n))
    x -= x.mean(0)
    return {"x": x, "c": rng.normal(size=n), "b": 10 ** rng.uniform(-3, 0)}, np.zeros(n)


def decays(y, a):
    height, rate = jnp.split(y, 2)
    return jnp.mean((height @ jnp.exp(-jnp.exp(rate)[:, None] * a["x"]) - a["t"]) ** 2)


@family(decays, (2, 4))
def sum_of_exponentials(rng, n):
    x, rate = np.linspace(0, 5, 30), np.log(np.geomspace(0.3, 4, n // 2))
    t = np.exp(-np.exp(rate)[:, None] * x).sum(0) + 0.01 * rng.normal(size=30)
    return {"x": x, "t": t}, np.concatenate([np.ones(n // 2), rate + rng.normal(size=n // 2) / 3])


@family(lambda y, a: logsumexp(a["x"] @ y + a["b"]) + a["decay"] * (y * y).sum())
def log_sum_exp(rng, n):
    args = {"x": rng.normal(size=(4 * n, n)), "b": rng.normal(size=4 * n)}
    return args | {"decay": 10 ** rng.uniform(-4, -1)}, rng.normal(size=n)


@family(lambda y, a: jnp.mean(jnp.logaddexp(a["x"] @ y - a["t"], a["t"] - a["x"] @ y)))
def log_cosh_regression(rng, n):
    x, w = table(rng, 4 * n + 10, n)
    return {"x": x, "t": x @ w * 3 + rng.standard_cauchy(len(x))}, rng.normal(size=n)


@family(lambda y, a: jnp.mean(jnp.log1p((a["x"] @ y - a["t"]) ** 2)), (2, 3, 5, 10))
def student_t_regression(rng, n):
    x, w = table(rng, 8 * n + 20, n, 0.3)
    return {"x": x, "t": x @ w * 3 + rng.standard_t(2, len(x)) * 0.3}, w + rng.normal(size=n) * 0.3


def product(y, a):
    u, v = y[: 2 * len(a["t"])].reshape(-1, 2), y[2 * len(a["t"]) :].reshape(2, -1)
    return ((u @ v - a["t"]) ** 2).mean() + a["decay"] * (y * y).mean()


@family(product, (3, 6, 12))
def matrix_factors(rng, n):
    """Rank two, with decay; the factors may turn, so that minima are circles."""
    t = rng.normal(size=(n, 2)) @ rng.normal(size=(2, n)) + 0.1 * rng.normal(size=(n, n))
    return {"t": t, "decay": 10 ** rng.uniform(-5, -2)}, rng.normal(size=4 * n)


@family(lambda y, a: (a["c"] * jnp.sqrt(inner(y, a) ** 2 + a["b"] ** 2)).sum())
def soft_kinks(rng, n):
    args, start = bowl(rng, n, 2.0)
    return args | {"b": 10 ** rng.uniform(-3, 0)}, start


@family(lambda y, a: squares(y, a) + a["b"] * jnp.abs(y).sum())
def kinks(rng, n):
    """Kinks along the weights: many are zero at the minimum."""
    args, start = bowl(rng, n, 3.0)
    end = np.where(rng.random(n) < 0.5, 0, args["end"])
    slope = np.where(end == 0, rng.uniform(-0.9, 0.9, n), np.sign(end)) * args["c"].max()
    axes = args["axes"]
    shift = axes.T @ (axes @ slope / args["c"])
    return args | {"b": args["c"].max(), "end": end + shift}, start, None, None, end


@family(lambda y, a: squares(y, a) - (a["b"] * jnp.cos(inner(y, a) * a["waves"])).sum())
def waves(rng, n):
    """A local minimum in each wave."""
    args, start = bowl(rng, n, 2.0)
    return args | {"b": args["c"] * rng.uniform(0, 3, n), "waves": rng.uniform(0.5, 3, n)}, start


@family(lambda y, a: (jnp.exp(-a["c"] * y)).sum() + jnp.log1p((y @ a["b"]) ** 2), (2, 5, 10))
def plateau(rng, n):
    """The minimum is at infinity."""
    return {"c": 10 ** rng.uniform(-1, 1, n), "b": rng.normal(size=n)}, rng.normal(size=n)


def likelihood(y, a):
    distance = ((a["x"][:, None] - a["x"]) ** 2 * jnp.exp(-2 * y[2:])).sum(-1)
    covariance = jnp.exp(y[0] - distance / 2) + jnp.exp(y[1]) * jnp.eye(len(a["t"]))
    factor = jnp.linalg.cholesky(covariance + 1e-4 * jnp.eye(len(a["t"])))
    z = jax.scipy.linalg.solve_triangular(factor, a["t"], lower=True)
    return (z @ z) / 2 + jnp.log(jnp.diag(factor)).sum() + 0.05 * (y * y).sum()


@family(likelihood, (3, 5, 8))
def gaussian_process(rng, n):
    x = rng.normal(size=(20, n - 2))
    t = np.sin(2 * x[:, 0]) + 0.2 * rng.normal(size=20)
    return {"x": x, "t": t}, np.concatenate([[0, -2], 0.3 * rng.normal(size=n - 2) + 0.1])


def network(y, a):
    w, b, v = y[:-8].reshape(-1, 4), y[-8:-4], y[-4:]
    error = jnp.tanh(a["x"] @ w + b) @ v - a["t"]
    return (error**2).mean() + a["decay"] * (y * y).sum()


@family(network, (1, 3, 8))
def tanh_network(rng, n):
    x = rng.normal(size=(60, n))
    t = np.sin(x.sum(1)) + 0.1 * rng.normal(size=60)
    return {"x": x, "t": t, "decay": 10 ** rng.uniform(-4, -2)}, rng.normal(size=4 * n + 8) * 0.7


def peak(y, a):
    return ((y[0] * jnp.exp(-(((a["x"] - y[1]) / y[2]) ** 2)) + y[3] - a["t"]) ** 2).sum()


@family(peak, (4,))
def gaussian_peak(rng, n):
    """A peak on a background, in raw units."""
    x, height, unit = np.linspace(0, 10, 40), 10 ** rng.uniform(-2, 3), 10 ** rng.uniform(-3, 3)
    t = height * (np.exp(-(((x - 5) / 1.5) ** 2)) + 0.3 + 0.05 * rng.normal(size=40))
    start = [height * rng.uniform(0.6, 1.5), unit * rng.uniform(4, 6), unit, height * 0.1]
    return {"x": x * unit, "t": t}, start


@family(lambda y, a: jnp.mean((y[0] * a["x"] / (jnp.abs(y[1]) + a["x"]) - a["t"]) ** 2), (2,))
def michaelis_menten(rng, n):
    rate, half = 10 ** rng.uniform(-2, 3, 2)
    x = half * 10 ** rng.uniform(-1.5, 1, 25)
    t = rate * x / (half + x) * (1 + 0.03 * rng.normal(size=25))
    return {"x": x, "t": t}, [rate * rng.uniform(0.3, 3), half * rng.uniform(0.3, 3)]


def classes(y, a):
    logits = a["x"] @ y.reshape(-1, 3)
    return (logsumexp(logits, 1) - (a["t"] * logits).sum(1)).mean() + a["decay"] * (y * y).sum()


@family(classes, (2, 5, 10))
def softmax_regression(rng, n):
    """Three classes, of which one is too many."""
    x, _ = table(rng, 60, n, 0.5)
    t = np.eye(3)[rng.integers(3, size=60)]
    return {"x": x, "t": t, "decay": 10 ** rng.uniform(-5, -2)}, np.zeros(3 * n)


def blocks(y, a):
    p, q, r, s = y.reshape(4, -1)
    return jnp.sum((p + 10 * q) ** 2 + 5 * (r - s) ** 2 + (q - 2 * r) ** 4 + 10 * (p - s) ** 4)


@family(blocks, (4, 8, 20))
def powell_singular(rng, n):
    """No curvature at the minimum along half of the axes."""
    return {}, np.tile([3.0, -1.0, 0.0, 1.0], (n // 4, 1)).T.ravel() * rng.uniform(0.5, 2, n)


@family(lambda y, a: ((y - 1) ** 2).sum() + (a["c"] @ (y - 1)) ** 2 + (a["c"] @ (y - 1)) ** 4)
def variably_dimensioned(rng, n):
    return {"c": np.arange(1, n + 1) * rng.uniform(0.5, 2)}, rng.uniform(0, 1, n)


@functools.cache
def _derivatives(fn):
    return jax.jit(lambda y, a: (fn(y, a), jax.grad(fn)(y, a), jax.hessian(fn)(y, a)))


def nearest_minimum(problem, y, steps=500):
    """Newton's method in float64, downhill only, from y; needs `jax_enable_x64`."""
    if problem.minimum is not None:
        return problem.minimum
    lower, upper = problem.box()
    derivatives = functools.partial(_derivatives(problem.fn), a=problem.args)
    y = np.clip(np.asarray(y, float), lower, upper)
    f, g, hessian = map(np.asarray, derivatives(y))
    for _ in range(steps):
        free = ~((y <= lower) & (g > 0) | (y >= upper) & (g < 0))
        unit = 1 / np.sqrt(np.maximum(np.abs(np.diag(hessian)), 1e-300))
        values, vectors = np.linalg.eigh((hessian * unit * unit[:, None])[np.ix_(free, free)])
        values = np.abs(values)
        inverse = np.where(values > 1e-14 * values.max(initial=0), 1 / (values + 1e-300), 0)
        move = np.zeros_like(y)
        move[free] = -unit[free] * (vectors @ (inverse * (vectors.T @ (g * unit)[free])))
        for part in 0.5 ** np.arange(40):
            next_y = np.clip(y + part * move, lower, upper)
            next_f, next_g, next_hessian = map(np.asarray, derivatives(next_y))
            # Near the minimum the loss is rounded; the gradient still says where it falls.
            is_rounding = part == 1 and next_f - f <= 1e-12 * abs(f)
            if next_f <= f or (is_rounding and abs(next_g @ move) < abs(g @ move)):
                break
        else:
            break
        done = np.all(np.abs(next_y - y) <= 1e-15 * np.abs(y))
        y, f, g, hessian = next_y, next_f, next_g, next_hessian
        if done:
            break
    return y
