"""The networks: shapes, which weights are binary, and training in both modes."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from longer import long_but

import ovsw_jax as ovsw
from ovsw_jax.nn import BinaryConv

LARGE = (64, 64, 3)  # ImageNet's networks take any multiple of 32

NETWORKS = {
    # network, image, binary layers, latent weights (counted by hand), calls of the activation
    ovsw.models.CifarResNet20: ((32, 32, 3), 18, 267_264, 19),
    ovsw.models.CifarResNet18: ((32, 32, 3), 19, 11_157_504, 16),
    ovsw.models.SmallResNet: ((8, 8, 3), 4, 18_432, 5),
    ovsw.models.VGGSmall: ((32, 32, 3), 5, 4_571_136, 5),
    ovsw.models.ResNet18: (LARGE, 16, 10_985_472, 17),
    ovsw.models.ResNet34: (LARGE, 32, 21_086_208, 33),
}
FIRST_AND_LAST = {
    ovsw.models.VGGSmall: ("conv0", "fc"),
    ovsw.models.CifarResNet18: ("conv1", "fc"),
    ovsw.models.ResNet18: ("conv1", "fc"),
    ovsw.models.ResNet34: ("conv1", "fc"),
}


def shapes_of(network, **arguments):
    """Parameters and logits of a network of 7 classes, as shapes: nothing is computed."""
    image = jax.ShapeDtypeStruct((2, *NETWORKS[network][0]), "float32")
    model = nnx.eval_shape(lambda: network(7, **arguments, rngs=nnx.Rngs(0)))
    params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    return params, nnx.eval_shape(lambda m, x: m(x), model, image)


@pytest.mark.parametrize("network", NETWORKS)
def test_shapes_and_binary_layers(network):
    _, layers, latent_weights, _ = NETWORKS[network]
    params, logits = shapes_of(network)
    assert (logits.shape, logits.dtype) == ((2, 7), "float32")
    mask = ovsw.latent_mask(params)
    latent = [p for p, m in zip(jax.tree.leaves(params), jax.tree.leaves(mask), strict=True) if m]
    assert len(latent) == layers
    assert sum(p.size for p in latent) == latent_weights
    first, last = FIRST_AND_LAST.get(network, ("conv1", "linear"))  # both real-valued
    assert set(params[first]) == {"kernel"}
    assert set(params[last]) == {"kernel", "bias"}


@pytest.mark.parametrize("network", long_but(NETWORKS, ovsw.models.SmallResNet))
def test_variants_of_the_convolutions(network):
    """Real weights, learned factors, or no sign at all, in place of every binary convolution."""
    layers = NETWORKS[network][1]
    plain, _ = shapes_of(network)
    variants = {
        "real weights": partial(BinaryConv, kernel_sign=None, scale=None),
        "learned factor": partial(BinaryConv, scale="learned"),
        "real": partial(nnx.Conv, use_bias=False),
    }
    for name, conv in variants.items():
        params, logits = shapes_of(network, conv=conv)
        assert logits.shape == (2, 7)
        latent = sum(jax.tree.leaves(ovsw.latent_mask(params)))
        assert latent == (layers if name == "learned factor" else 0)
        more = len(jax.tree.leaves(params)) - len(jax.tree.leaves(plain))
        assert more == (layers if name == "learned factor" else 0)


@pytest.mark.parametrize("network", long_but(NETWORKS, ovsw.models.SmallResNet))
def test_activation_and_dtype_reach_every_layer(network):
    dtypes = []

    def activation(x):
        dtypes.append(x.dtype)
        return nnx.relu(x)

    params, logits = shapes_of(network, activation=activation, dtype=jnp.bfloat16)
    assert dtypes == [jnp.bfloat16] * NETWORKS[network][3]
    assert logits.dtype == jnp.float32
    assert {p.dtype for p in jax.tree.leaves(params)} == {jnp.dtype("float32")}


def test_skips_by_hand():
    x = jnp.arange(16.0).reshape(1, 4, 4, 1)
    pad = ovsw.models.PadShortcut(1, 4, 2, rngs=nnx.Rngs(0))
    means = np.array([[2.5, 4.5], [10.5, 12.5]])
    expected = np.stack([0 * means, means, 0 * means, 0 * means], axis=-1)[None]
    np.testing.assert_array_equal(pad(x), expected)
    for average_pool, pixels in ((True, means), (False, np.array([[0.0, 2.0], [8.0, 10.0]]))):
        conv = ovsw.models.ConvShortcut(1, 2, 2, average_pool=average_pool, rngs=nnx.Rngs(0))
        conv.conv.kernel[...] = jnp.array([1.0, -2.0]).reshape(1, 1, 1, 2)
        conv.eval()
        expected = np.stack([pixels, -2 * pixels], axis=-1)[None] / np.sqrt(1 + 1e-5)
        np.testing.assert_allclose(conv(x), expected, rtol=1e-6)


@pytest.mark.long
def test_evaluation_depends_on_no_other_image():
    model = ovsw.models.SmallResNet(10, rngs=nnx.Rngs(0))
    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 8, 8, 3)), jnp.float32)
    model.train()
    model(x)
    model.eval()
    np.testing.assert_allclose(model(x)[:1], model(x[:1]), rtol=1e-5, atol=1e-5)
