import numpy as np
import pytest
from sklearn.datasets import load_diabetes
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
from sklearn.model_selection import train_test_split

RPROP = "irprop_plus from 0.1"
ADAM = ("adam at 0.1", "adam at 0.3", "adam at 1")
LBFGS = ("optax.lbfgs", "scikit-learn")
FROM_ONE = "all hyperparameters from 1"
NEARER = "lengthscales from 3, noise from 0.3"


@pytest.fixture(scope="module")
def figures(run_example):
    return run_example("gaussian_process", "--no-plot")[0]


@pytest.fixture(scope="module")
def after(figures):
    """After that many evaluations: `after[start, method, count]`."""
    return {
        (start, method, int(count)): value
        for start, cells in figures["fits"].items()
        for method, cell in cells.items()
        for count, value in cell["after"].items()
    }


def standardized():
    inputs, targets = load_diabetes(return_X_y=True)
    inputs = (inputs - inputs.mean(axis=0)) / inputs.std(axis=0)
    return inputs, (targets - targets.mean()) / targets.std()


@pytest.mark.parametrize(("start", "lengthscale", "noise"), [(FROM_ONE, 1, 1), (NEARER, 3, 0.3)])
def test_likelihood_is_scikit_learns(after, start, lengthscale, noise):
    kernel = ConstantKernel(1) * RBF(np.full(10, lengthscale)) + WhiteKernel(noise**2)
    model = GaussianProcessRegressor(kernel, alpha=0, optimizer=None).fit(*standardized())
    expected = -model.log_marginal_likelihood_value_
    # Rounding alone parts them: 442 float64 terms, in another order.
    for method in (RPROP, *ADAM, *LBFGS):
        assert after[start, method, 1] == pytest.approx(expected, rel=1e-10)


def test_known_values(figures, after):
    """Of an independent implementation, printed to as many digits."""
    assert round(after[FROM_ONE, RPROP, 1], 2) == 634.52
    # That minimum is of a longer run; after 40 evaluations a thousandth may be missing.
    assert figures["least"] == pytest.approx(478.426, abs=1e-3)
    assert round(after[FROM_ONE, RPROP, 30], 2) == 478.43
    # It counted 30 steps, which are 31 evaluations; a step changes these in the first decimal.
    assert after[FROM_ONE, "adam at 0.1", 30] == pytest.approx(482.76, abs=0.2)
    assert after[FROM_ONE, "adam at 0.3", 30] == pytest.approx(479.73, abs=0.2)


@pytest.mark.parametrize("start", [FROM_ONE, NEARER])
def test_rprop_is_near_the_maximum_no_later_than_any_other(figures, start):
    near = {name: cell["near"] for name, cell in figures["fits"][start].items()}
    assert near[RPROP] <= 40
    assert all(near[name] is None for name in ADAM)
    assert all(near[name] is None or near[name] > near[RPROP] for name in LBFGS)


def test_lbfgs_leads_at_first_from_the_nearer_start(after):
    assert all(after[NEARER, name, 10] < after[NEARER, RPROP, 10] for name in LBFGS)


def test_held_out_error_is_scikit_learns(figures):
    inputs, targets = load_diabetes(return_X_y=True)
    train, test = train_test_split(np.arange(len(targets)), test_size=0.2, random_state=0)
    mean, scale = targets[train].mean(), targets[train].std()
    scaled = (inputs - inputs[train].mean(axis=0)) / inputs[train].std(axis=0)
    # From the optimum's neighbourhood, so that it needs few evaluations; it is the same optimum.
    kernel = ConstantKernel(1) * RBF(np.full(10, 5.0), (1e-5, 1e9)) + WhiteKernel(0.5)
    model = GaussianProcessRegressor(kernel, alpha=0).fit(
        scaled[train], (targets[train] - mean) / scale
    )
    error = mean + scale * model.predict(scaled[test]) - targets[test]
    # 40 evaluations end within 0.01 of the maximum, which moves an error by about 0.01.
    for name in (RPROP, "scikit-learn"):
        assert figures["errors"][name] == pytest.approx(np.sqrt(np.mean(error**2)), abs=0.1)
    assert figures["errors"]["the others' mean"] == pytest.approx(
        np.sqrt(np.mean((targets[test] - mean) ** 2)), rel=1e-12
    )


def test_every_method_predicts_alike(figures):
    errors = [figures["errors"][name] for name in (RPROP, *ADAM, *LBFGS)]
    # The likelihoods differ by a few nats, the errors by less than a hundredth.
    assert max(errors) < 1.01 * min(errors) < figures["errors"]["the others' mean"]


def test_a_failed_factorization_is_undone(figures):
    without, undone = figures["failing"]["False"], figures["failing"]["True"]
    # Without it, every evaluation after the first fails, for ever.
    assert without["failed"] == 39
    assert undone["failed"] < 5
    assert undone["lowest"] < 0.9 * without["lowest"]
