"""AGS against the official code's numbers (ags.npz)."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from test_ags_properties import jitted

from tests import golden

pytestmark = pytest.mark.usefixtures("strict_promotion")

CASES = (
    "conv3x3",
    "conv1x1",
    "fanin1",
    "depthwise3x3",
    "zero_grad_filter",
    "zero_weight_filter",
    "huge_grad",
    "tiny_grad_below_clamp",
    "tiny_weight_below_clamp",
    "overflow_grad",
    "near_threshold",
)
RTOL = {"f32": 1e-6, "f64": 1e-13}
# One filter of this case holds subnormals, which XLA flushes to zero on CPU.
ATOL = {("tiny_grad_below_clamp", "f32"): 1e-30}
# Axes of one filter, and how the official OIHW arrays are brought into that layout and back.
LAYOUTS = {"HWIO": (None, golden.to_hwio), "OIHW": ((1, 2, 3), lambda kernel: kernel)}


def test_no_reference_case_is_left_out():
    data = golden.load("ags")
    assert sorted(data["cases"]) == sorted(CASES)
    assert list(data["deltas"]) == [0.01, 0.04]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("precision", ["f32", "f64"])
@pytest.mark.parametrize("delta", ["0.01", "0.04"])
@pytest.mark.parametrize("case", CASES)
def test_ags_gives_the_official_gradients(case, delta, precision, layout):
    data = golden.load("ags")
    expected = {
        name: data[f"{case}/d{delta}/{precision}/{name}"]
        for name in ("scaled_grad", "mean_ratio", "judge")
    }
    axes, arrange = LAYOUTS[layout]
    weight, gradient, expected_gradient = (
        arrange(kernel)
        for kernel in (data[f"{case}/weight"], data[f"{case}/grad"], expected["scaled_grad"])
    )
    dtype = {"f32": np.float32, "f64": np.float64}[precision]
    wide = jax.enable_x64(True) if precision == "f64" else contextlib.nullcontext()
    with wide:
        arrays = (jnp.asarray(x, dtype) for x in (gradient, weight, float(delta)))
        scaled, (_, rescaled, ratio, _) = jax.device_get(jitted(axes)(*arrays))

    assert scaled.dtype == dtype
    np.testing.assert_allclose(
        scaled, expected_gradient, rtol=RTOL[precision], atol=ATOL.get((case, precision), 0)
    )
    filter_axis = 0 if layout == "OIHW" else -1
    by_filter = [np.moveaxis(a, filter_axis, 0) for a in (scaled, gradient.astype(dtype))]
    changed = np.array([np.any(new != old) for new, old in zip(*by_filter, strict=True)])
    nonzero = np.array([np.any(old) for old in by_filter[1]])
    np.testing.assert_array_equal(changed, expected["judge"] & nonzero)

    assert rescaled == pytest.approx(np.mean(expected["judge"]), rel=1e-7)
    # The state keeps its ratio in float32 whatever the weights are.
    np.testing.assert_allclose(ratio, expected["mean_ratio"], rtol=1e-6)


@pytest.mark.parametrize("delta", ["0.01", "0.04"])
@pytest.mark.parametrize("case", CASES)
def test_oracle_gives_the_official_gradients(case, delta):
    data = golden.load("ags")
    expected = {
        name: data[f"{case}/d{delta}/f64/{name}"] for name in ("scaled_grad", "mean_ratio", "judge")
    }
    ags = oracle.ags(data[f"{case}/grad"], data[f"{case}/weight"], float(delta), axes=(1, 2, 3))

    np.testing.assert_allclose(ags.gradient, expected["scaled_grad"], rtol=1e-13, atol=0)
    np.testing.assert_array_equal(ags.rescaled, expected["judge"])
    np.testing.assert_allclose(ags.ratio.mean(), expected["mean_ratio"], rtol=1e-13)
