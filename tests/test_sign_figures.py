"""The figure of signs: what it draws are the formulas, and it can be read."""

import csv

import numpy as np
import pytest
from test_figure_layout import assert_readable

from experiments.studies import signs_figure

# From the papers, of the points whose float32 is on the side of a jump that the formula says.
GRADIENTS = {
    ("sign", ""): lambda x: 0 * x,
    ("ste_sign", ""): lambda x: 1 + 0 * x,
    ("clipped_ste_sign", ""): lambda x: 1.0 * (np.abs(x) <= 1),
    ("approx_sign", ""): lambda x: np.maximum(2 - 2 * np.abs(x), 0),
    ("swish_sign", "β = 2"): lambda x: 2 * (2 - 2 * x * np.tanh(x)) / (1 + np.cosh(2 * x)),
    ("tanh_sign", "t = 5"): lambda x: 5 / np.cosh(5 * x) ** 2,
    ("LearnedThresholdSign", "θ = 0.8"): lambda x: np.maximum(2 - 2 * np.abs(x - 0.8), 0),
    ("magnitude_aware_sign", "mean |W| = 0.5"): lambda x: 0.5 * (np.abs(x) <= 1),
    ("hardtanh", ""): lambda x: 1.0 * (np.abs(x) < 1),
    ("PReLU", "β = 0.25"): lambda x: np.where(x > 0, 1, 0.25),
    ("RPReLU", "γ = 0.8, ζ = -0.4"): lambda x: np.where(x > 0.8, 1, 0.25),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("signs")
    signs_figure.main(out)
    return out


def test_table_holds_the_formulas(folder):
    with (folder / "signs.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for (block, setting), formula in GRADIENTS.items():
        chosen = [row for row in rows if (row["block"], row["setting"]) == (block, setting)]
        x, gradient = (np.array([float(row[key]) for row in chosen]) for key in ("x", "gradient"))
        np.testing.assert_array_equal(x, signs_figure.GRID)
        np.testing.assert_allclose(gradient, formula(x), rtol=1e-5, atol=2e-6)


def test_figure_is_there_and_readable(folder):
    assert (folder / "signs.png").stat().st_size > 10_000
    curves = signs_figure.curves()
    fig = signs_figure.figure(curves)
    assert_readable(fig)
    lines = sum(len(axes.lines) for axes in fig.axes)
    assert lines == 2 * len(curves)
