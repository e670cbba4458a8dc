"""bfloat16 arithmetic with float32 parameters: exact signs, no loss scaling, same flips."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import test_models
from flax import nnx
from jax.extend.core import jaxprs_in_params
from longer import long_but

import ovsw_jax as ovsw
from ovsw_jax.models import BasicBlock, BiRealBlock, PadShortcut, ReActBlock
from ovsw_jax.models.resnet import ResNet
from ovsw_jax.nn import BatchNorm, BinaryConv, BinaryDense

BF16 = jnp.bfloat16
react_conv = partial(BinaryConv, scale=ovsw.nn.mean_magnitude)
NETWORKS = {network: row[:2] for network, row in test_models.NETWORKS.items()}
NETWORKS[partial(ovsw.models.ResNet18, block=ReActBlock)] = NETWORKS[ovsw.models.ResNet18]
NAMES = [getattr(n, "__name__", "ResNet18 of ReActBlocks") for n in NETWORKS]
every_network = pytest.mark.parametrize(
    "network", long_but(NETWORKS, ovsw.models.SmallResNet, ovsw.models.ResNet18), ids=NAMES
)

# Small, but of the same parts: what the networks do in numbers is computed on these.
tiny_resnet = partial(ResNet, depths=(1, 1), widths=(8, 16))
TINY = {
    "SmallResNet": (ovsw.models.SmallResNet, (8, 8, 3)),
    "ResNet": (tiny_resnet, (32, 32, 3)),
    "ResNet of ReActBlocks": (partial(tiny_resnet, block=ReActBlock, norm_scale=1.0), (32, 32, 3)),
    "ResNet of BasicBlocks": (partial(tiny_resnet, block=BasicBlock), (32, 32, 3)),
    "VGGSmall": (ovsw.models.VGGSmall, (32, 32, 3)),
}


def functions(make):
    """Loss (with logits and statistics) in training, logits in evaluation; parameters, rest."""
    model = make()
    graph, params, statistics = nnx.split(model, nnx.Param, ...)

    def loss_fn(params, statistics, images, labels):
        model = nnx.merge(graph, params, statistics, copy=True)
        model.train()
        logits = model(images)
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
        return loss, (logits, nnx.state(model, nnx.Not(nnx.Param)))

    def evaluate(params, statistics, images):
        model = nnx.merge(graph, params, statistics, copy=True)
        model.eval()
        return model(images)

    return loss_fn, evaluate, params, statistics


def dtype_of(x):
    return jnp.dtype(x.dtype)


def dtypes(tree):
    return set(map(dtype_of, jax.tree.leaves(tree)))


def mostly_positive(rng, shape):
    """So that sums of signs are large: bfloat16 holds integers to 256."""
    return jnp.asarray(rng.normal(0.8, 1, shape), jnp.float32)


@pytest.mark.parametrize(
    ("in_features", "kernel_size", "arguments"),
    [
        (512, (3, 3), {"padding": "VALID"}),  # fan-in 4608, the largest of ResNet18 and VGG-small
        (2048, (1, 1), {"strides": 2}),
        (1024, (3, 3), {"padding": "VALID", "feature_group_count": 2}),
    ],
)
@pytest.mark.parametrize("training", [True, False])
def test_sums_of_signs_are_rounded_once(in_features, kernel_size, arguments, training):
    rng = np.random.default_rng(0)
    groups = arguments.get("feature_group_count", 1)
    conv = BinaryConv(
        in_features, 6, kernel_size, scale=None, dtype=BF16, **arguments, rngs=nnx.Rngs(0)
    )
    conv.set_attributes(deterministic=not training)
    conv.latent_kernel[...] = mostly_positive(rng, conv.latent_kernel.shape)
    x = mostly_positive(rng, (3, *kernel_size, in_features))
    signs = np.where(x >= 0, 1, -1).reshape(3, -1, groups, in_features // groups)
    kernel = np.where(conv.latent_kernel[...] >= 0, 1, -1).reshape(
        signs.shape[1], in_features // groups, groups, 6 // groups
    )
    sums = np.einsum("npgi,pigo->ngo", signs, kernel).reshape(3, 6)
    assert np.any((np.abs(sums) > 512) & (sums % 4 != 0))  # what a sum in bfloat16 would lose
    y = conv(x)
    assert y.dtype == BF16
    np.testing.assert_array_equal(y.reshape(3, 6), sums.astype(np.float32).astype(BF16))


def test_matrix_products_of_signs_are_rounded_once():
    rng = np.random.default_rng(0)
    dense = BinaryDense(4608, 6, scale=None, dtype=BF16, rngs=nnx.Rngs(0))
    dense.latent_kernel[...] = mostly_positive(rng, (4608, 6))
    x = mostly_positive(rng, (3, 4608))
    sums = np.where(x >= 0, 1, -1) @ np.where(dense.latent_kernel[...] >= 0, 1, -1)
    np.testing.assert_array_equal(dense(x), sums.astype(np.float32).astype(BF16))


def convolutions(jaxpr):
    """(dtype of the operands, dtype of the sums) of every convolution in a jaxpr."""
    found = []
    for equation in jaxpr.eqns:
        if equation.primitive.name == "conv_general_dilated":
            found.append((equation.invars[0].aval.dtype, equation.outvars[0].aval.dtype))
        for inner in jaxprs_in_params(equation.params):  # of a nested call, or a platform's own
            found += convolutions(inner)
    return found


@every_network
def test_arithmetic_and_dtypes_of_every_network(network):
    """Convolutions of signs sum in float32; logits, gradients and statistics are float32."""
    image, layers = NETWORKS[network]
    loss_fn, evaluate, params, statistics = functions(
        lambda: nnx.eval_shape(lambda: network(4, dtype=BF16, rngs=nnx.Rngs(0)))
    )
    images, labels = jax.ShapeDtypeStruct((2, *image), BF16), jax.ShapeDtypeStruct((2,), jnp.int32)
    forward = jax.make_jaxpr(evaluate)(params, statistics, images)
    gradient = jax.value_and_grad(loss_fn, has_aux=True)
    value, gradients = jax.eval_shape(gradient, params, statistics, images, labels)
    of_signs = [sums for operands, sums in convolutions(forward.jaxpr) if operands == BF16]
    assert of_signs.count(jnp.float32) == layers
    assert dtypes((value, gradients)) == {jnp.dtype("float32")}
    assert dtypes(params) == {jnp.dtype("float32")}


def example(image, size):
    rng = np.random.default_rng(1)
    # Exact in bfloat16, so that both precisions see the same images.
    images = jnp.asarray(rng.normal(size=(size, *image)), BF16).astype(jnp.float32)
    return images, jnp.asarray(rng.integers(0, 4, size))


@pytest.mark.parametrize("name", long_but(TINY, "ResNet"))
def test_a_training_step_without_loss_scaling(name):
    """Finite everywhere, alive in every parameter, float32 in every state; and an evaluation.

    The loss is scaled after all, by powers of two: gradients follow bit for bit, none underflows.
    """
    network, image = TINY[name]
    loss_fn, evaluate, params, statistics = functions(
        lambda: network(4, dtype=BF16, rngs=nnx.Rngs(0))
    )
    # A batch norm of two samples gives +1 and -1 and would have no gradient: VGG-small has none
    # of those, and takes long.
    images, labels = example(image, size=2 if name == "VGGSmall" else 4)
    tx = ovsw.ovsw_sgd(0.1)

    @jax.jit
    def gradients_of(params, scale):
        def scaled(params):
            loss, rest = loss_fn(params, statistics, images, labels)
            return loss * scale, rest

        return jax.value_and_grad(scaled, has_aux=True)(params)

    @jax.jit
    def step(gradients, state, params):
        updates, state = tx.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    opt_state = jax.jit(tx.init)(params)
    (loss, (logits, after)), gradients = gradients_of(params, 1.0)
    leaves = [np.asarray(g) for g in jax.tree.leaves(gradients)]
    assert all(np.all(np.isfinite(g)) for g in (*leaves, loss, logits))
    assert all(np.any(g != 0) for g in leaves)
    assert dtypes((loss, logits, gradients)) == {jnp.dtype("float32")}
    for k in (-40, 40):
        _, scaled = gradients_of(params, 2.0**k)
        for a, b in zip(jax.tree.leaves(scaled), leaves, strict=True):
            np.testing.assert_array_equal(a, b * np.float32(2.0**k))

    new_params, new_state = step(gradients, opt_state, params)
    assert dtypes(new_params) == {jnp.dtype("float32")}
    assert jax.tree.map(dtype_of, new_state) == jax.tree.map(dtype_of, opt_state)
    assert dtypes(after) == dtypes(statistics) == {jnp.dtype("float32")}

    logits = jax.jit(evaluate)(new_params, after, images)
    assert logits.dtype == jnp.float32
    assert jnp.all(jnp.isfinite(logits))


BLOCKS = {
    "BiRealBlock": BiRealBlock,
    "BiRealBlock, padded": partial(BiRealBlock, shortcut=PadShortcut),
    "BasicBlock": BasicBlock,
    "ReActBlock": partial(ReActBlock, conv=react_conv),
}


@pytest.mark.parametrize("name", long_but(BLOCKS, "BiRealBlock"))
def test_blocks_are_close_to_float32(name):
    """One block, whose second signs differ where an activation is next to zero, and only there.

    A whole network multiplies such differences from layer to layer: no test can compare those.
    """
    images, _ = example((12, 12, 16), size=8)

    def run(dtype):
        block = BLOCKS[name](16, 32, 2, dtype=dtype, rngs=nnx.Rngs(0))
        graph, params, statistics = nnx.split(block, nnx.Param, ...)

        @jax.jit
        @partial(jax.value_and_grad, has_aux=True)
        def loss_fn(params, x):
            y = nnx.merge(graph, params, statistics, copy=True)(x)
            y = y.astype(jnp.float32)
            return jnp.mean(jnp.square(y - 0.5)), y

        (loss, y), gradients = loss_fn(params, images)
        return loss, y, nnx.to_pure_dict(gradients)

    loss, y, gradients = run(BF16)
    exact_loss, exact_y, exact = run(jnp.float32)
    np.testing.assert_allclose(loss, exact_loss, rtol=2e-3)
    assert np.corrcoef(y.ravel(), exact_y.ravel())[0, 1] > 0.998
    for (path, a), b in zip(
        jax.tree_util.tree_leaves_with_path(gradients), jax.tree.leaves(exact), strict=True
    ):
        cosine = jnp.vdot(a, b) / jnp.linalg.norm(a) / jnp.linalg.norm(b)
        assert cosine > 0.96, path


@pytest.mark.parametrize("training", [True, False])
def test_batch_norm_rounds_its_result_only(training):
    """A mean of 1000 and a deviation of 3 would both be lost in bfloat16's eight bits."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(1000 + 4 * rng.integers(-2, 3, (64, 5)), BF16)  # exact: multiples of 4
    norm = BatchNorm(5, dtype=BF16, rngs=nnx.Rngs(0))
    norm.mean[...], norm.var[...] = jnp.full(5, 1001.3), jnp.full(5, 9.7)
    norm.scale[...] = jnp.asarray(rng.normal(size=5), jnp.float32)
    norm.set_attributes(use_running_average=not training)
    y = norm(x)
    assert y.dtype == BF16
    wide = np.asarray(x, np.float64)
    mean, variance = (wide.mean(0), wide.var(0)) if training else (1001.3, 9.7)
    expected = (wide - mean) / np.sqrt(variance + 1e-5) * np.asarray(norm.scale[...])
    np.testing.assert_allclose(np.asarray(y, np.float64), expected, rtol=2.0**-8, atol=1e-3)
    if training:
        np.testing.assert_allclose(norm.mean[...], 0.9 * 1001.3 + 0.1 * mean, rtol=1e-6)
        np.testing.assert_allclose(norm.var[...], 0.9 * 9.7 + 0.1 * variance, rtol=1e-5)
    assert norm.mean[...].dtype == norm.var[...].dtype == jnp.float32
