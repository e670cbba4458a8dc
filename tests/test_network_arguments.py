"""Networks and blocks: arguments and images that they refuse, and what they say."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import ovsw_jax as ovsw
from ovsw_jax.models import BiRealBlock, PadShortcut, ReActBlock, SmallResNet, VGGSmall
from ovsw_jax.models.resnet import ResNet
from ovsw_jax.nn import BinaryConv

NETWORKS = [
    *(ovsw.models.CifarResNet20, ovsw.models.CifarResNet18, SmallResNet, VGGSmall),
    *(ovsw.models.ResNet18, ovsw.models.ResNet34),
]


def abstract(make, *arguments, **options):
    return nnx.eval_shape(lambda: make(*arguments, **options, rngs=nnx.Rngs(0)))


def shape_of_output(model, shape):
    return nnx.eval_shape(lambda m, x: m(x), model, jax.ShapeDtypeStruct(shape, "float32")).shape


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("value", [0, -3, 2.0, True, None])
def test_numbers_of_classes_and_channels(network, value):
    for name in ("num_classes", "in_channels"):
        with pytest.raises(ValueError, match=rf"^{name}={value!r} must be a positive integer\.$"):
            network(**{name: value}, rngs=nnx.Rngs(0))


def test_numbers_of_numpy_are_taken():
    assert abstract(SmallResNet, np.int64(7)).linear.kernel.shape == (32, 7)


@pytest.mark.parametrize("network", NETWORKS)
def test_an_empty_batch_in_evaluation(network):
    model = abstract(network, 7)
    model.eval()
    assert shape_of_output(model, (0, 32, 32, 3)) == (0, 7)


LARGEST = {SmallResNet: 2, ovsw.models.CifarResNet20: 4, ovsw.models.ResNet18: 32}


@pytest.mark.parametrize("network", NETWORKS)
def test_images_are_told_what_is_wrong_alone(network):
    """Channels, an axis, pixels, or the size: one of them at a time."""
    multiple = LARGEST.get(network)
    channels = r"\(batch, height, width, 3\), channels last\. in_channels= sets how many\."
    refused = {
        (2, 32, 32, 1): channels,
        (32, 32, 3): channels,
        (2, 0, 32, 3): r"a height and width of at least one pixel\.",
    }
    if multiple:
        refused[(2, 32, 33, 3)] = rf"a height and width divisible by {multiple}, as it halves them."
    if network is VGGSmall:
        refused[(2, 64, 64, 3)] = r"a height and width of 32, as its linear layer sees every pixel."
    model = abstract(network, 7)
    for shape, takes in refused.items():
        message = (
            rf"^images of shape {re.escape(str(shape))} do not fit: this network takes {takes}"
        )
        with pytest.raises(ValueError, match=message):
            shape_of_output(model, shape)


def test_cifar_resnet18_takes_images_of_any_size():
    assert shape_of_output(abstract(ovsw.models.CifarResNet18, 7), (1, 33, 30, 3)) == (1, 7)


def deviation(**options):
    """Of the weights of VGGSmall's second binary convolution, whose fan-out is twice its fan-in."""
    model = VGGSmall(10, **options, rngs=nnx.Rngs(0))
    conv = model.conv2  # 128 channels to 256
    kernel = conv.kernel if hasattr(conv, "kernel") else conv.latent_kernel
    return float(jnp.std(kernel[...]))


@pytest.mark.long
def test_variants_of_vgg_small_start_as_it_does():
    """Kaiming normal by fan-out, with whatever convolution; unless someone says otherwise."""
    fan_out, fan_in = np.sqrt(2 / (9 * 256)), np.sqrt(2 / (9 * 128))
    for conv in (
        partial(BinaryConv, scale="learned"),
        partial(nnx.Conv, use_bias=False),
        lambda *sizes, **options: BinaryConv(*sizes, scale=None, **options),
    ):
        assert deviation(conv=conv) == pytest.approx(fan_out, rel=0.01)
    by_fan_in = nnx.initializers.variance_scaling(2.0, "fan_in", "normal")
    assert deviation(kernel_init=by_fan_in) == pytest.approx(fan_in, rel=0.01)
    own = partial(BinaryConv, kernel_init=by_fan_in)
    assert deviation(conv=own) == pytest.approx(fan_in, rel=0.01)


def test_a_convolution_of_vgg_small_without_a_start():
    def conv(in_features, out_features, kernel_size, *, strides, padding, dtype, rngs):
        raise AssertionError("called")

    with pytest.raises(ValueError, match=r"conv=conv takes no kernel_init=.* pass it on"):
        VGGSmall(10, conv=conv, rngs=nnx.Rngs(0))


@pytest.mark.parametrize("network", [ovsw.models.ResNet18, ovsw.models.ResNet34])
def test_batch_norms_too_small_for_float16(network):
    message = (
        r"norm_scale=1e-08 is too small for dtype=float16, whose least normal number is 6\.1e-05: "
        r".* no gradient\. Use norm_scale=1\.0, or dtype=jnp\.bfloat16"
    )
    with pytest.raises(ValueError, match=message):
        abstract(network, 7, dtype=jnp.float16)
    abstract(network, 7, dtype=jnp.bfloat16)


@pytest.mark.long
def test_latent_weights_have_gradients_in_float16_with_larger_batch_norms():
    """The remedy that the error names, on a small relative."""
    sizes = {"depths": (1, 1), "widths": (8, 16)}
    model = ResNet(2, **sizes, norm_scale=1.0, dtype=jnp.float16, rngs=nnx.Rngs(0))
    images = jnp.asarray(np.random.default_rng(0).normal(size=(4, 32, 32, 3)), jnp.float32)
    graph, params, rest = nnx.split(model, nnx.Param, ...)

    @jax.jit
    @jax.grad
    def gradient(params):
        return jax.nn.log_softmax(nnx.merge(graph, params, rest, copy=True)(images))[0, 0]

    latent = [
        g[...] for path, g in nnx.to_flat_state(gradient(params)) if path[-1] == "latent_kernel"
    ]
    assert len(latent) == 4
    assert all(0 < jnp.abs(g).max() < jnp.inf for g in latent)


def test_widths():
    with pytest.raises(ValueError, match=r"widths=\(\) must hold the channels of one stage at"):
        SmallResNet(widths=(), rngs=nnx.Rngs(0))
    message = r"features=16 is less than in_features=32: a PadShortcut .* can't drop any.*Conv"
    with pytest.raises(ValueError, match=message):
        SmallResNet(widths=(32, 16), rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"stem_strides=0 must be a positive integer"):
        SmallResNet(stem_strides=0, rngs=nnx.Rngs(0))


def test_an_activation_for_a_block_that_has_its_own():
    message = r"block=ReActBlock takes no activation=: it has one of its own\. Leave activation="
    for block in (ReActBlock, partial(ReActBlock, conv=BinaryConv)):
        with pytest.raises(ValueError, match=message):
            ovsw.models.ResNet18(block=block, activation=nnx.relu, rngs=nnx.Rngs(0))


@pytest.mark.parametrize(
    ("conv", "message"),
    [
        (nnx.Conv, "conv=Conv takes no input_sign=.* use ovsw.nn.BinaryConv .* BiRealBlock"),
        (partial(nnx.Conv, use_bias=False), "conv=Conv takes no input_sign="),
        (partial(BinaryConv, input_sign=None), "input_sign=None, which a ReActBlock sets itself"),
        (partial(BinaryConv, normalize_input=True), "sets normalize_input=True.* Leave it out"),
    ],
)
def test_convolutions_that_a_react_block_refuses(conv, message):
    with pytest.raises(ValueError, match=message):
        ReActBlock(4, 4, conv=conv, rngs=nnx.Rngs(0))


def test_a_convolution_that_agrees_with_a_react_block():
    conv = partial(BinaryConv, normalize_input=False, kernel_sign=None, scale=None)
    assert ReActBlock(4, 4, conv=conv, rngs=nnx.Rngs(0)).conv1.kernel.shape == (3, 3, 4, 4)


@pytest.mark.parametrize("size", [(7, 7), (7, 8), (8, 5), (1, 1)])
@pytest.mark.parametrize(
    "block",
    [ovsw.models.BasicBlock, BiRealBlock, partial(BiRealBlock, shortcut=PadShortcut), ReActBlock],
)
def test_odd_sizes(block, size):
    halved = shape_of_output(abstract(block, 4, 8, 2), (2, *size, 4))
    assert halved == (2, *(-(-n // 2) for n in size), 8)


def test_the_pool_of_an_odd_size_by_hand():
    """The last pixels have fewer neighbours, and are no darker for it."""
    x = jnp.arange(9.0).reshape(1, 3, 3, 1)
    skip = PadShortcut(1, 1, 2, rngs=nnx.Rngs(0))
    np.testing.assert_array_equal(skip(x)[0, :, :, 0], [[2, 3.5], [6.5, 8]])
