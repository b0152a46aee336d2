"""Gradients by hand, and the measured errors of wrong formulas."""

import json

import numpy as np
import pytest

import launch
from lm.model import derivations


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    directory = tmp_path_factory.mktemp("derivations")
    assert launch.main(["launch.py", "--experiment=derivations", f"--workdir={directory}"]) == 0
    assert {path.name for path in directory.iterdir()} == {"derivations.json", "derivations.png"}
    return json.loads((directory / "derivations.json").read_text())


def test_gradients_by_hand_are_those_of_autodiff_and_of_differences(content):
    assert {row["model"] for row in content["right"]} == {"window", *derivations.RECURRENCES}
    assert max(row["to automatic"] for row in content["right"]) < 1e-12
    assert max(row["to differences"] for row in content["right"]) < 1e-6


def test_two_published_formulas_are_wrong(content):
    errors = {(row["formula"].partition(":")[0], row["parameter"]): row for row in content["wrong"]}
    assert all(row["corrected"] < 1e-12 for row in errors.values())
    for name in ("embedding", "input_kernel", "bias"):
        assert errors["2a", name]["as printed"] == pytest.approx(1.0), "twice the gradient"
    for name in ("output_kernel", "output_bias"):
        assert errors["2a", name]["as printed"] < 1e-12, "the slope of tanh does not reach them"
    for name in ("w_h", "w_x", "b"):
        assert 0.1 < errors["48, 50, 52", name]["as printed"] < 1


def test_operations_of_a_step(content):
    """2,000 words, 50 numbers each, 100 units; elementwise operations are beyond the count of products."""
    for row in content["operations"]:
        assert 1 < row["by XLA"] / row["of products"] < 1.05


def test_the_slope_of_tanh():
    z = np.linspace(-3, 3, 13)
    slope = (np.tanh(z + 1e-6) - np.tanh(z - 1e-6)) / 2e-6
    np.testing.assert_allclose(derivations.tanh_slope(np.tanh(z)), slope, atol=1e-9)
    np.testing.assert_allclose(derivations.salvatore_tanh_slope(np.tanh(z)), 2 * slope, atol=1e-8)


def test_a_uniform_model_of_v_words_loses_ln_v():
    """Question 3a."""
    for words, nats in ((2000, 7.6009), (10_000, 9.2103)):
        assert derivations.softmax_error(np.zeros(words), 3)[0] == pytest.approx(nats, abs=5e-5)
