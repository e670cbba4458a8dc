"""BinaryConv against the official layer's forward and backward pass.

The official sign gives 0 at 0. The layers take their signs as arguments, so we compare with signs
that do the same, and check apart from that what sign(0) = +1 changes.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import ovsw_jax as ovsw
from tests import golden
from tests.official_signs import official_input_sign, official_kernel_sign

CASES = (
    "k3s1p1",
    "k3s2p1_even",
    "k3s2p1_odd",
    "k3s1p0",
    "k1s1p0",
    "k1s2p0",
    "k1s2p0_odd",
    "k5s1p2",
    "dw3s1p1",
    "k3s1p1_bias",
)
SCALES = {"getscale": "standardized", "sf": "learned", "sf2": "learned"}
CONSTANT_FILTER = 2  # its scale is rounding noise in float32; the manifest allows 1e-4


OFFICIAL_SIGNS = {"input_sign": official_input_sign, "kernel_sign": official_kernel_sign}


def forward_and_backward(data, case, mode, scale, factor, dtype, signs=OFFICIAL_SIGNS):
    _, in_features, _, _, features, kernel, stride, pad, groups = map(int, data[f"{case}/geom"])
    params = {"latent_kernel": golden.to_hwio(data[f"{case}/w"])}
    if use_bias := f"{case}/b" in data:
        params["bias"] = data[f"{case}/b"]
    if factor is not None:
        params["filter_scale"] = factor
    params = {name: jnp.asarray(value, dtype) for name, value in params.items()}
    x = jnp.asarray(np.moveaxis(data[f"{case}/x"], 1, -1), dtype)
    cotangent = jnp.asarray(np.moveaxis(data[f"{case}/ct"], 1, -1), dtype)

    conv = ovsw.nn.BinaryConv(
        in_features,
        features,
        (kernel, kernel),
        strides=stride,
        padding=pad,
        feature_group_count=groups,
        use_bias=use_bias,
        scale=scale,
        param_dtype=dtype,
        **signs,
        rngs=nnx.Rngs(0),
    )
    conv.set_attributes(deterministic=mode == "eval")
    graph, _ = nnx.split(conv)

    def layer(params, x):
        return nnx.merge(graph, params)(x)

    @jax.jit
    def run(params, x, cotangent):
        out, transpose = jax.vjp(layer, params, x)
        gradients, dx = transpose(cotangent)
        return out, dx, gradients

    return run(params, x, cotangent)


def assert_within_tolerance(actual, expected, dtype, slack=0.0):
    """Within the manifest's tolerance relative to the largest entry, plus `slack`."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.dtype == dtype
    relative = {np.float64: 1e-12, np.float32: 1e-6}[dtype]
    np.testing.assert_array_less(
        np.abs(actual - expected), relative * np.abs(expected).max() + slack + 1e-30
    )


def slack_of_constant_filter(data, case, mode, dtype):
    """What an error of 1e-4 in the constant filter's factor makes of the results, in float32."""
    out_features = data[f"{case}/w"].shape[0]
    if dtype == np.float64 or out_features <= CONSTANT_FILTER:
        return 0.0, 0.0, 0.0
    only = np.eye(out_features)[CONSTANT_FILTER]
    unit = forward_and_backward(data, case, mode, "learned", only, dtype)
    out, dx, gradients = jax.tree.map(lambda x: 1e-4 * np.abs(x), unit)
    return out, dx, gradients["latent_kernel"]


def precision(dtype):
    return "f64" if dtype == np.float64 else "f32"


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize(
    ("case", "key"), [*itertools.product(CASES, ["getscale", "sf"]), ("k3s1p1", "sf2")]
)
def test_results_and_gradients(case, key, mode, dtype):
    data = golden.load("layer_forward_backward")
    prefix = f"{case}/{key}/{mode}/{precision(dtype)}"
    scale = SCALES[key]
    out_slack = dx_slack = dw_slack = 0.0
    with jax.enable_x64(dtype == np.float64):
        factor = data[f"{prefix}/sf"] if scale == "learned" else None
        out, dx, gradients = forward_and_backward(data, case, mode, scale, factor, dtype)
        if scale == "standardized":
            out_slack, dx_slack, dw_slack = slack_of_constant_filter(data, case, mode, dtype)
    assert_within_tolerance(out, np.moveaxis(data[f"{prefix}/out"], 1, -1), dtype, out_slack)
    assert_within_tolerance(dx, np.moveaxis(data[f"{prefix}/dx"], 1, -1), dtype, dx_slack)
    dw = golden.to_hwio(data[f"{prefix}/dw"])
    assert_within_tolerance(gradients["latent_kernel"], dw, dtype, dw_slack)
    if scale == "learned":
        assert_within_tolerance(gradients["filter_scale"], data[f"{prefix}/dsf"], dtype)
    if f"{prefix}/db" in data:
        slack = np.zeros(len(data[f"{prefix}/db"]))
        if dtype == np.float32:
            slack[CONSTANT_FILTER] = 1e-4 * np.abs(data[f"{case}/ct"]).sum()
        assert_within_tolerance(gradients["bias"], data[f"{prefix}/db"], dtype, slack)


def test_learned_factor_starts_at_the_mean_magnitude():
    data = golden.load("layer_forward_backward")
    layer = ovsw.nn.BinaryConv(
        8,
        12,
        (3, 3),
        scale="learned",
        kernel_init=lambda *_: jnp.asarray(golden.to_hwio(data["k3s1p1/w"])),
        rngs=nnx.Rngs(0),
    )
    np.testing.assert_allclose(
        layer.filter_scale[...], data["k3s1p1/sf/train/f32/sf"], rtol=1e-6, atol=1e-12
    )


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_sign_of_zero_is_plus_one(mode):
    """With our signs the layer does what the official signs do once every 0 is a tiny positive.

    The latent weights' own values also set the factor, so the factor is left out here.
    """
    data = dict(golden.load("layer_forward_backward"))
    assert (data["k3s1p1/x"] == 0).any()
    assert (data["k3s1p1/w"] == 0).any()
    ours = {"input_sign": ovsw.nn.approx_sign, "kernel_sign": ovsw.nn.ste_sign}
    with jax.enable_x64(True):
        actual = forward_and_backward(data, "k3s1p1", mode, None, None, np.float64, signs=ours)
        for name in ("x", "w"):
            values = data[f"k3s1p1/{name}"].astype(np.float64)
            data[f"k3s1p1/{name}"] = np.where(values == 0, 1e-200, values)
        expected = forward_and_backward(data, "k3s1p1", mode, None, None, np.float64)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12), actual, expected)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_fan_in_of_one_is_finite_where_the_official_layer_gives_nan(mode, dtype):
    data = golden.load("layer_forward_backward")
    assert np.isnan(data[f"k1_fanin1/getscale/{mode}/{precision(dtype)}/out"]).any()
    with jax.enable_x64(dtype == np.float64):
        fixed = forward_and_backward(data, "k1_fanin1", mode, "standardized", None, dtype)
        plain = forward_and_backward(data, "k1_fanin1", mode, None, None, dtype)
    jax.tree.map(np.testing.assert_array_equal, fixed, plain)  # the factor is 1
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(fixed))
