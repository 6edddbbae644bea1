"""The benchmark on applications, on two cheap problems for ten evaluations."""

import gzip
import json
from importlib.util import find_spec

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import optax_rprop

NEEDED = ("matplotlib", "scipy", "sklearn", "tqdm")
MISSING = [name for name in NEEDED if find_spec(name) is None]
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"needs {', '.join(MISSING)}")

PROBLEMS = "logistic", "matrix_factorisation"


def losses_by_a_loop():
    """Those of rprop_momentum on the logistic regression, from zero."""
    from sklearn.datasets import load_breast_cancer

    x, y = load_breast_cancer(return_X_y=True)
    x = jnp.column_stack([jnp.ones(len(y)), jnp.asarray((x - x.mean(0)) / x.std(0))])
    signs = jnp.asarray(2.0 * y - 1)

    def loss(weights):
        return jnp.logaddexp(0.0, -signs * (x @ weights)).sum() + jnp.sum(weights[1:] ** 2) / 2

    weights = jnp.zeros(31)
    optimizer = optax_rprop.rprop_momentum()
    state = optimizer.init(weights)
    for _ in range(10):
        value, gradient = jax.value_and_grad(loss)(weights)
        yield float(value)
        update, state = optimizer.update(gradient, state, weights)
        weights += update


def test_two_problems_in_ten_evaluations(run_in_turn, tmp_path, x64):
    kept, plot, again = tmp_path / "kept.json.gz", tmp_path / "plot.png", tmp_path / "again.png"
    told = ("--evaluations", 10, "--json", kept, "--plot", plot, "--processes", 1)
    _, printed, shown = run_in_turn(
        "applications",
        (*told, "--problems", *PROBLEMS, "--optimizers", "rprop_momentum", "L-BFGS-B"),
        (*told, "--problems", "logistic", "--optimizers", "adam 0.1"),
        ("--from", kept, "--problems", "logistic", "--plot", again),
        flags=("-W", "error"),
    )
    assert shown.splitlines()[:-1] == printed.splitlines()[:-1]
    assert again.read_bytes() == plot.read_bytes()

    records = json.loads(gzip.decompress(kept.read_bytes()))
    assert {*records} == {*PROBLEMS}
    for name, record in records.items():
        for start in record["starts"]:
            added = ["adam 0.1"] if name == "logistic" else []
            assert [*start["best"]] == ["rprop_momentum", "L-BFGS-B", *added]
            for best in start["best"].values():
                assert np.all(np.diff(best) <= 0)
                assert best[0] == pytest.approx(start["first"])
                assert start["known"] <= best[-1] < best[0]

    found = records["logistic"]["starts"][0]
    assert found["first"] == pytest.approx(569 * np.log(2))
    best = np.minimum.accumulate([*losses_by_a_loop()])
    assert found["best"]["rprop_momentum"][2::3] == pytest.approx(best)
