"""How the networks start: deviations by formula and by the reference, and ours bit for bit."""

import jax
import numpy as np
import pytest
from flax import nnx

import ovsw_jax as ovsw
from ovsw_jax.nn.layers import kaiming_normal
from tests import golden
from tests.torch_names import path_of

NETWORKS = {
    "cResNet20": (ovsw.models.CifarResNet20, 10),
    "cResNet18": (ovsw.models.CifarResNet18, 10),
    "VGGSmall": (ovsw.models.VGGSmall, 10),
    "ResNet18": (ovsw.models.ResNet18, 1000),
}


@pytest.fixture(scope="module", params=NETWORKS)
def started(request):
    """Name of a network and its parameters: path -> array."""
    network, classes = NETWORKS[request.param]
    state = nnx.state(network(classes, rngs=nnx.Rngs(0)), nnx.Param)
    return request.param, {p: np.asarray(v[...]) for p, v in nnx.to_flat_state(state)}


def expected_deviation(name, path, shape):
    """Of a kernel, or of the bias of a last layer, by the formula of its initialisation."""
    fan_in = int(np.prod(shape[:-1]))
    fan_out = fan_in // shape[-2] * shape[-1]
    if name == "VGGSmall":
        return 0.01 if path[0] == "fc" else np.sqrt(2 / fan_out)
    return np.sqrt(2 / fan_in) if path[-1] == "latent_kernel" else 1 / np.sqrt(3 * fan_in)


def test_kernels_by_formula(started):
    name, params = started
    kernels = {p: x for p, x in params.items() if p[-1] in ("kernel", "latent_kernel")}
    for path, kernel in kernels.items():
        deviation = expected_deviation(name, path, kernel.shape)
        # Five standard errors of a deviation of n numbers, were they normal.
        tolerance = 5 / np.sqrt(2 * kernel.size)
        np.testing.assert_allclose(np.std(kernel), deviation, rtol=tolerance, err_msg=str(path))
        if path[-1] == "kernel" and name != "VGGSmall":  # PyTorch's default: uniform
            limit = np.sqrt(3) * deviation
            assert 0.95 * limit < np.abs(kernel).max() <= limit, path


def test_biases_and_norms_by_formula(started):
    name, params = started
    small = name == "ResNet18"
    for path, x in params.items():
        if path[-1] == "scale":
            start = 1e-8 if small and path[0] != "bn2" else 1
            np.testing.assert_array_equal(x, np.float32(start), err_msg=str(path))
        elif path[-1] == "bias" and path[0] in ("linear", "fc") and name != "VGGSmall":
            limit = 1 / np.sqrt(np.prod(params[(path[0], "kernel")].shape[:-1]))
            assert 0.5 * limit < np.abs(x).max() <= limit
            assert np.abs(np.mean(x)) < 0.6 * limit
        elif path[-1] in ("bias", "negative_slope"):
            start = 0.25 if path[-1] == "negative_slope" else 0
            np.testing.assert_array_equal(x, start, err_msg=str(path))


def test_deviations_of_the_reference(started):
    name, params = started
    data = golden.load("models")
    prefix = f"model/{name}"
    names, moments = data[f"{prefix}/param_names"], data[f"{prefix}/official_init_mean_std"]
    for torch_name, (_, deviation) in zip(map(str, names), moments, strict=True):
        x = params[path_of(torch_name, params)]
        tolerance = 5 / np.sqrt(x.size)  # of the difference of two samples
        actual = np.std(x, ddof=1, dtype=np.float64)
        np.testing.assert_allclose(actual, deviation, rtol=tolerance, atol=0, err_msg=torch_name)


def test_small_resnet_starts_as_ever():
    """Results in this repository depend on every bit of it."""
    rngs = nnx.Rngs(5)
    expected = []

    def norm(features):
        layer = nnx.BatchNorm(features, rngs=rngs)
        expected.extend([layer.scale, layer.bias])

    def conv(in_features, features):
        layer = nnx.Conv(
            in_features, features, (3, 3), use_bias=False, kernel_init=kaiming_normal, rngs=rngs
        )
        expected.append(layer.kernel)
        norm(features)

    for sizes in ((3, 16), (16, 16), (16, 16), (16, 32), (32, 32)):
        conv(*sizes)
    norm(32)
    linear = nnx.Linear(32, 10, rngs=rngs)
    expected.extend([linear.kernel, linear.bias])

    model = ovsw.models.SmallResNet(10, rngs=nnx.Rngs(5))
    started = jax.tree.leaves(nnx.to_pure_dict(nnx.state(model, nnx.Param)))
    assert sorted(map(bits, started)) == sorted(bits(x[...]) for x in expected)


def bits(array):
    return np.shape(array), np.asarray(array).tobytes()
