"""Frozen networks compute what the network does: to the bit where float operations are exact."""

import functools

import frozen_reader
import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from frozen_networks import Drawn, designs, exact, images, same
from hypothesis import given

import ovsw_jax as ovsw

RNGS = nnx.Rngs(0)
CASES = max(4, hypothesis.settings().max_examples // 4)


def evaluated(model, x):
    """By the network itself, compiled, which needs fewer programs than one for each operation."""
    return np.asarray(nnx.jit(lambda m, x: m(x))(model, jnp.asarray(x)))


def ops(frozen):
    return [node.op for node in frozen.graph.nodes]


def kinds(frozen, op):
    return [node.type.kind for node in frozen.graph.nodes if node.op == op]


def frozen_alike(model, x, path):
    """The frozen network, once it is known to agree with the network and the NumPy evaluator."""
    frozen = ovsw.deploy.freeze(model, x.shape)
    want = evaluated(model, x)
    assert same(want, frozen(x))
    frozen.save(path)
    assert same(want, frozen_reader.evaluate(path, x))
    return frozen


@hypothesis.settings(max_examples=CASES)
@given(design=designs())
def test_random_networks_agree_to_the_bit(design, tmp_path_factory):
    model = exact(Drawn(design), design["seed"])
    x = images((2, *Drawn.size, design["channels"]), design["seed"])
    frozen_alike(model, x, tmp_path_factory.getbasetemp() / "net.safetensors")


class Pieces(nnx.Module):
    """What the drawn networks do not have."""

    def __init__(self):
        self.conv = nnx.Conv(3, 8, (3, 3), padding="CIRCULAR", rngs=RNGS)
        self.depthwise = nnx.Conv(8, 16, (3, 3), feature_group_count=8, use_bias=False, rngs=RNGS)
        self.norm = nnx.BatchNorm(16, rngs=RNGS)
        self.reflect = ovsw.nn.BinaryConv(16, 100, (3, 3), padding="REFLECT", scale=None, rngs=RNGS)
        self.norm2 = nnx.BatchNorm(100, rngs=RNGS)
        self.dense = ovsw.nn.BinaryDense(100, 6, scale=None, use_bias=True, rngs=RNGS)
        self.one = ovsw.nn.BinaryConv(6, 4, 3, padding="CAUSAL", scale=None, rngs=RNGS)
        self.prelu = nnx.PReLU()
        self.dropout = nnx.Dropout(0.5, rngs=RNGS)

    def __call__(self, x):
        x = nnx.leaky_relu(self.conv(x), 0.25)
        x = self.norm(self.depthwise(jnp.pad(x, ((0, 0), (1, 0), (0, 1), (0, 0)))))
        x = self.dropout(jnp.concatenate([x[..., 8:], -x[..., :8]], -1))
        x = self.norm2(nnx.max_pool(self.reflect(x), (3, 3), strides=(2, 2)))
        x = self.dense(x.transpose(0, 2, 1, 3))
        y = self.one(x[:, ::-1, 0])
        return jnp.clip(
            self.prelu(x).max((1, 2)) - 2 * jnp.squeeze(y[:, -1:], 1).min(1, keepdims=True), -9
        )


def test_other_layers_and_the_python_between_them_agree_to_the_bit(tmp_path):
    model = exact(Pieces())
    frozen = frozen_alike(model, images((2, 9, 8, 3)), tmp_path / "net.safetensors")
    assert kinds(frozen, "threshold") == ["signs"]  # max-pool and batch norm are in it
    assert "prelu" in ops(frozen)
    assert same(frozen(images((5, 9, 8, 3)))[:2], frozen(images((5, 9, 8, 3))[:2]))


def test_a_network_of_the_paper_agrees_to_the_bit(tmp_path):
    conv = functools.partial(ovsw.nn.BinaryConv, scale="learned")
    model = ovsw.models.SmallResNet(in_channels=1, widths=(8, 16), conv=conv, rngs=RNGS)
    frozen = frozen_alike(exact(model), images((3, 8, 8, 1)), tmp_path / "net.safetensors")
    assert kinds(frozen, "conv") == ["float32", *["int32"] * 4]


@pytest.mark.parametrize(
    ("make", "thresholds"),
    [
        (lambda: ovsw.models.BasicBlock(4, 4, rngs=RNGS), 1),  # one of two has a skip
        (lambda: ovsw.models.BiRealBlock(4, 8, 2, rngs=RNGS), 0),
        (lambda: ovsw.models.ReActBlock(4, 8, 2, rngs=RNGS), 0),
    ],
)
def test_blocks_have_thresholds_where_no_skip_is(make, thresholds):
    model = make()
    model.eval()
    x = np.random.default_rng(0).normal(size=(2, 6, 6, 4)).astype(np.float32)
    frozen = ovsw.deploy.freeze(model, x.shape)
    assert ops(frozen).count("threshold") == thresholds
    np.testing.assert_allclose(evaluated(model, x), frozen(x), rtol=1e-5, atol=1e-5)


REACT = functools.partial(
    ovsw.models.ResNet18,
    block=ovsw.models.ReActBlock,
    norm_scale=1.0,
    conv=functools.partial(ovsw.nn.BinaryConv, scale=ovsw.nn.mean_magnitude),
)


@pytest.mark.long
@pytest.mark.parametrize(
    ("make", "size"),
    [
        (ovsw.models.CifarResNet18, 32),
        (ovsw.models.CifarResNet20, 32),
        (ovsw.models.VGGSmall, 32),
        (functools.partial(ovsw.models.ResNet18, norm_scale=1.0), 64),
        (functools.partial(ovsw.models.ResNet34, norm_scale=1.0), 64),
        (REACT, 64),
    ],
    ids=["CifarResNet18", "CifarResNet20", "VGGSmall", "ResNet18", "ResNet34", "ReActNet"],
)
def test_every_network_freezes(make, size, tmp_path):
    model = make(rngs=nnx.Rngs(0))
    model.eval()
    x = np.random.default_rng(0).normal(size=(2, size, size, 3)).astype(np.float32)
    frozen = ovsw.deploy.freeze(model, x.shape)
    np.testing.assert_allclose(frozen(x), evaluated(model, x), rtol=1e-4, atol=1e-4)
    frozen.save(tmp_path / "net.safetensors")
    size = (tmp_path / "net.safetensors").stat().st_size
    assert size <= 1.02 * ovsw.summary(model, x.shape).total.stored_bytes + 4096
    assert same(ovsw.deploy.load(tmp_path / "net.safetensors")(x), frozen(x))


@pytest.mark.parametrize(
    ("scale", "bias", "threshold", "direction"),
    [
        (1.0, 0.0, 0, 1),  # 0 gives +1
        (1.0, -0.5, 1, 1),
        (-1.0, 0.0, 1, -1),  # +1 up to 0, so -1 from 1 on
        (-2.0, 3.0, 2, -1),
        (0.0, 0.0, -9, 1),  # always +1
        (0.0, -1.0, -9, -1),  # never
        (1.0, -20.0, -9, -1),  # no sum is large enough
    ],
)
def test_thresholds_of_every_kind_of_batch_norm(scale, bias, threshold, direction):
    class Net(nnx.Module):
        def __init__(self):
            self.first = ovsw.nn.BinaryDense(9, 2, scale=None, rngs=nnx.Rngs(0))
            self.norm = nnx.BatchNorm(2, rngs=nnx.Rngs(0))
            self.second = ovsw.nn.BinaryDense(2, 1, scale=None, rngs=nnx.Rngs(0))

        def __call__(self, x):
            return self.second(self.norm(self.first(x)))

    model = Net()
    model.norm.scale[...], model.norm.bias[...] = jnp.array([scale, 1.0]), jnp.array([bias, 0.0])
    frozen = ovsw.deploy.freeze(model, (1, 9))
    (node,) = (n for n in frozen.graph.nodes if n.op == "threshold")
    thresholds, *directions = (frozen.graph.tensors[name] for name in node.inputs[1:])
    assert thresholds.tolist() == [threshold, 0]
    assert [d.values().tolist() for d in directions] == ([] if direction > 0 else [[-1, 1]])


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_it_is_compiled_for_other_platforms_as_products(platform):
    layer = ovsw.nn.BinaryConv(8, 8, (3, 3), rngs=nnx.Rngs(0))
    frozen = ovsw.deploy.freeze(layer, (1, 6, 6, 8))
    traced = jax.jit(lambda x: frozen(x)).trace(jnp.zeros((2, 6, 6, 8)))
    text = traced.lower(lowering_platforms=(platform,)).as_text()
    assert "stablehlo.convolution" in text
    assert "stablehlo.popcnt" not in text
    assert "stablehlo.popcnt" in traced.lower(lowering_platforms=("cpu",)).as_text()


class Activated(nnx.Module):
    def __init__(self):
        self.layer_norm, self.rms_norm = nnx.LayerNorm(6, rngs=RNGS), nnx.RMSNorm(6, rngs=RNGS)

    def __call__(self, x):
        y = self.layer_norm(x) + self.rms_norm(x)
        for function in (nnx.gelu, nnx.silu, nnx.elu, nnx.softplus, nnx.sigmoid, nnx.tanh):
            y = y + function(x)
        y = y + nnx.hard_swish(x) + nnx.relu6(x) + nnx.selu(x) + nnx.gelu(x, approximate=False)
        return nnx.log_softmax(y) + nnx.softmax(y)


def test_usual_activations_and_norms(tmp_path):
    x = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)
    frozen = ovsw.deploy.freeze(Activated(), x.shape)
    want = evaluated(Activated(), x)
    np.testing.assert_allclose(frozen(x), want, rtol=1e-5, atol=1e-5)
    frozen.save(tmp_path / "net.safetensors")
    numpy = frozen_reader.evaluate(tmp_path / "net.safetensors", x)
    np.testing.assert_allclose(numpy, want, rtol=1e-5, atol=1e-5)


class Stacked(nnx.Module):
    """Layers in a stack, which a scan calls one after the other."""

    def __init__(self):
        @nnx.vmap
        def make(rngs):
            return ovsw.nn.BinaryDense(8, 8, rngs=rngs)

        self.layers = make(nnx.Rngs(0).split(3))

    def __call__(self, x):
        @nnx.scan(in_axes=(0, nnx.Carry), out_axes=nnx.Carry)
        def all_layers(layer, x):
            return layer(x) + x

        return all_layers(self.layers, x)


def test_a_scan_over_layers_is_unrolled():
    x = np.random.default_rng(0).normal(size=(4, 8)).astype(np.float32)
    frozen = ovsw.deploy.freeze(Stacked(), x.shape)
    assert kinds(frozen, "dense") == ["int32"] * 3
    np.testing.assert_allclose(frozen(x), evaluated(Stacked(), x), rtol=1e-5, atol=1e-6)


def test_a_magnitude_in_the_weights_becomes_a_factor_behind_exact_sums():
    sign = ovsw.nn.magnitude_aware_sign
    layer = ovsw.nn.BinaryDense(40, 3, kernel_sign=sign, scale=None, rngs=RNGS)
    frozen = ovsw.deploy.freeze(layer, (1, 40))
    assert ops(frozen) == ["sign", "dense", "affine"]
    scale = frozen.graph.tensors[frozen.graph.nodes[2].inputs[1]]
    np.testing.assert_allclose(scale, np.abs(layer.latent_kernel[...]).mean(0), rtol=1e-6)


def test_the_model_does_not_change_and_need_not_be_in_evaluation_mode():
    model = ovsw.models.BasicBlock(4, 4, rngs=RNGS)
    before = nnx.to_pure_dict(nnx.state(model))
    frozen = ovsw.deploy.freeze(model, (2, 6, 6, 4))
    assert not model.bn1.use_running_average
    jax.tree.map(np.testing.assert_array_equal, before, nnx.to_pure_dict(nnx.state(model)))
    model.eval()
    x = images((2, 6, 6, 4))
    np.testing.assert_allclose(evaluated(model, x), frozen(x), rtol=1e-5, atol=1e-5)


def test_it_is_computed_in_float32_whatever_training_rounded_to():
    narrow = nnx.Linear(4, 4, dtype=jnp.bfloat16, rngs=RNGS)
    x = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    kernel = np.asarray(narrow.kernel[...].astype(jnp.bfloat16).astype(jnp.float32))
    want = x @ kernel + np.asarray(narrow.bias[...])
    np.testing.assert_allclose(ovsw.deploy.freeze(narrow, (1, 4))(x), want, rtol=1e-6)


@pytest.mark.long
def test_a_trained_network_of_digits_gives_the_same_answers(tmp_path):
    from sklearn.datasets import load_digits

    data = load_digits()
    x = (data.images[..., None] / 16 - 0.3).astype(np.float32)
    train, test = slice(0, 1300), slice(1300, None)

    rngs = nnx.Rngs(0)

    class Net(nnx.Module):
        def __init__(self):
            self.conv = nnx.Conv(1, 16, (3, 3), rngs=rngs)
            self.norm = ovsw.nn.BatchNorm(16, rngs=rngs)
            self.block = ovsw.models.BasicBlock(16, 16, rngs=rngs)
            self.head = nnx.Linear(16, 10, rngs=rngs)

        def __call__(self, x):
            return self.head(self.block(self.norm(self.conv(x))).mean((1, 2)))

    model = Net()
    optimizer = nnx.Optimizer(model, optax.adam(1e-2), wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer, x, y):
        def loss(model):
            return optax.softmax_cross_entropy_with_integer_labels(model(x), y).mean()

        optimizer.update(model, nnx.grad(loss)(model))

    order = np.random.default_rng(0)
    for _ in range(80):
        batch = order.integers(0, 1300, 128)
        step(model, optimizer, x[train][batch], data.target[train][batch])
    model.eval()
    want = evaluated(model, x[test]).argmax(-1)
    assert np.mean(want == data.target[test]) > 0.5  # it has learnt something
    frozen = ovsw.deploy.freeze(model, (1, 8, 8, 1), classes=[str(n) for n in range(10)])
    frozen.save(tmp_path / "net.safetensors")
    for answers in (frozen(x[test]), ovsw.deploy.load(tmp_path / "net.safetensors")(x[test])):
        assert np.mean(np.asarray(answers).argmax(-1) != want) <= 0.001


# --- what is refused


class Calls(nnx.Module):
    def __init__(self, function):
        self.inner = _Inner(function)

    def __call__(self, x):
        return self.inner(x)


class _Inner(nnx.Module):
    def __init__(self, function):
        self.function = function

    def __call__(self, x):
        return self.function(x)


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (jnp.sign, "the operation sign has no form in the graph. jnp.sign gives 0 at 0"),
        (lambda x: jnp.cumsum(x, 1), "the operation cumsum"),
        (lambda x: jnp.einsum("bi,bj->bij", x, x), "a product of two results, as in attention"),
        (lambda x: x - x.mean(0), "across the batch axis"),
        (lambda x: x.reshape(-1), "across the batch axis"),
        (lambda x: x[:1], "a slice across the batch axis"),
        (lambda x: x.argmax(-1), "the operation argmax"),
        (lambda x: x + jnp.arange(2.0)[:, None], "a constant that differs along the batch axis"),
        (lambda x: x.astype(int).astype(float), "a conversion from float32 to int32"),
        (lambda x: jax.lax.while_loop(lambda c: c.sum() < 9, lambda c: c + 1, x), "while"),
        (lambda x: (x, x), "a result of 2 arrays"),
        (lambda x: jnp.ones(3), "does not depend on the input"),
        (lambda x: jnp.concatenate([x, jnp.ones((2, 1))], 1), "a concatenation with a constant"),
    ],
)
def test_what_no_graph_expresses_is_refused_by_name(function, said):
    with pytest.raises(ValueError, match="can't be frozen") as error:
        ovsw.deploy.freeze(Calls(function), (2, 3))
    assert said in str(error.value)
    if "a result" not in said.split(" of 2")[0] and "depend" not in said:
        assert "'inner'" in str(error.value)


def test_what_is_not_used_may_be_anything():
    frozen = ovsw.deploy.freeze(Calls(lambda x: (jnp.cumsum(x), 2 * x)[1]), (2, 3))
    assert ops(frozen) == ["affine"]


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        (lambda layer: ovsw.deploy.freeze("net", (1, 4)), TypeError, "takes a Flax NNX module"),
        (lambda layer: ovsw.deploy.freeze(layer, (1, 5)), ValueError, "can't be called with"),
        (lambda layer: ovsw.deploy.freeze(layer, 5), ValueError, "input_shape=5"),
        (
            lambda layer: ovsw.deploy.freeze(nnx.eval_shape(lambda: layer), (1, 4)),
            ValueError,
            "holds shapes instead of arrays",
        ),
        (
            lambda layer: ovsw.deploy.freeze(layer, (1, 4), classes=["a"]),
            ValueError,
            "classes has 1 names",
        ),
        (
            lambda layer: ovsw.deploy.freeze(layer, (1, 4), preprocessing={"mean": [0]}),
            ValueError,
            "needs mean and std",
        ),
        (
            lambda layer: ovsw.deploy.freeze(layer, (1, 4), preprocessing=3),
            TypeError,
            "preprocessing=3 is no mapping",
        ),
        (lambda layer: ovsw.deploy.Preprocessing((0.5,), (0.0,)), ValueError, "must be above 0"),
        (lambda layer: ovsw.deploy.Preprocessing(0.5, 0.1), ValueError, "mean=0.5 must hold"),
        (
            lambda layer: ovsw.deploy.freeze(layer, (1, 4))(np.zeros((1, 5))),
            ValueError,
            r"this network takes \(batch, 4\)",
        ),
        (
            lambda layer: ovsw.deploy.freeze(layer, (1, 4))(np.zeros((1, 4), complex)),
            TypeError,
            "no real numbers",
        ),
    ],
)
def test_bad_arguments_are_named(call, error, said):
    with pytest.raises(error, match=said):
        call(nnx.Linear(4, 2, rngs=RNGS))
