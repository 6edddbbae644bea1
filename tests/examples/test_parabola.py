"""The trace of x^2 is that of the published rule."""

import numpy as np
import pytest
import reference


@pytest.fixture(scope="module")
def example(run_example):
    return run_example("parabola", "--no-plot")


def test_it_equals_its_numpy_loop(example):
    figures, output = example
    assert figures["difference"] == 0
    assert output.endswith("x and step sizes: 0\n")


def test_it_equals_the_reference(example):
    figures, _ = example
    given = reference.Hyperparameters.of_type(np.float64, learning_rate=0.1)
    weight = reference.Weight(np.float64(5), given)
    for x, step_size in zip(figures["xs"], figures["step_sizes"], strict=True):
        assert (x, step_size) == (weight.value, weight.step_size)
        weight.update("irprop_minus", 2 * weight.value)


def test_fifty_steps_are_printed(example):
    figures, output = example
    rows = [line.split() for line in output.splitlines()[1:52]]
    assert [int(row[0]) for row in rows] == list(range(51))
    for name, column in (("xs", 1), ("step_sizes", 3)):
        # Half a unit of the ninth decimal, and a hair for the decimal number's own rounding.
        printed = [float(row[column]) for row in rows]
        np.testing.assert_allclose(printed, figures[name], rtol=0, atol=0.5000001e-9)


def test_the_step_size_grows_and_is_halved(example):
    sizes = np.array(example[0]["step_sizes"])
    ratios = sizes[1:] / sizes[:-1]
    # 1.2 is rounded in the factor, in the product and in this quotient: a few of 2**-53.
    near = np.isclose(ratios[:, None], [0.5, 1, 1.2], rtol=1e-15, atol=0)
    assert near.any(axis=1).all()
    assert near.any(axis=0).all()
