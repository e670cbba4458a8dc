"""An ordinary network made binary: what is replaced, what is kept, and bad arguments."""

from collections import OrderedDict, namedtuple
from functools import cache, partial

import flax.core
import flax.linen
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import ovsw_jax as ovsw


class Block(nnx.Module):
    def __init__(self, features, rngs, **conv):
        # Not in the order of the alphabet, in which Flax would list them.
        self.widen = nnx.Conv(features, 2 * features, (3, 3), rngs=rngs, **conv)
        self.norm = nnx.BatchNorm(2 * features, rngs=rngs)
        self.narrow = nnx.Conv(2 * features, features, (1, 1), use_bias=False, rngs=rngs)

    def __call__(self, x):
        return x + self.narrow(self.norm(self.widen(x)))


class Net(nnx.Module):
    def __init__(self, rngs, **conv):
        self.stem = nnx.Conv(3, 4, (3, 3), rngs=rngs)
        self.blocks = nnx.List([Block(4, rngs, **conv), Block(4, rngs)])
        self.mlp = nnx.Dict(
            wide=nnx.Sequential(nnx.Linear(4, 6, rngs=rngs), nnx.tanh),
            deep=nnx.data((nnx.Linear(6, 6, rngs=rngs),)),
        )
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.classify = nnx.Linear(6, 3, rngs=rngs)

    def __call__(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        x = self.mlp["deep"][0](self.mlp["wide"](x.mean(axis=(1, 2))))
        return self.classify(self.dropout(x))


INNER = [
    "blocks/0/widen",
    "blocks/0/narrow",
    "blocks/1/widen",
    "blocks/1/narrow",
    "mlp/wide/layers/0",
    "mlp/deep/0",
]
BINARY = ovsw.nn.BinaryConv | ovsw.nn.BinaryDense


@cache
def ordinary():
    """One network for the tests that leave it as it is, as binarize does."""
    return Net(nnx.Rngs(0))


def layers(model, kinds):
    found = nnx.iter_modules(model)
    return {"/".join(map(str, path)): m for path, m in found if isinstance(m, kinds)}


def values(model):
    return jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(model, nnx.Not(nnx.RngState))))


def images(seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(2, 6, 6, 3)), jnp.float32)


def test_all_but_the_first_and_the_last_in_the_order_of_assignment():
    model = ordinary()
    before = values(model)
    binary = ovsw.binarize(model)
    assert set(layers(binary, BINARY)) == set(INNER)
    assert set(layers(binary, nnx.Conv | nnx.Linear)) == {"stem", "classify"}
    assert not layers(model, BINARY)
    jax.tree.map(np.testing.assert_array_equal, values(model), before)


def test_values_stay_under_their_names():
    before, after = (
        {jax.tree_util.keystr(path, simple=True, separator="/"): x for path, x in leaves}
        for leaves in map(
            jax.tree_util.tree_leaves_with_path,
            (values(ordinary()), values(ovsw.binarize(ordinary(), scale=None))),
        )
    )
    for name in INNER:
        before[f"{name}/latent_kernel"] = before.pop(f"{name}/kernel")
    assert before.keys() == after.keys()
    for name, value in before.items():
        np.testing.assert_array_equal(after[name], value)


def test_the_two_networks_share_no_arrays():
    model = ordinary()
    binary = ovsw.binarize(model)
    jax.tree.map(lambda x: x.delete(), nnx.state(binary, nnx.Param))  # as a donated one is
    assert np.isfinite(model(images())).all()


GEOMETRIES = [
    {"strides": 2, "padding": 1},
    {"strides": (2, 1), "padding": "VALID", "use_bias": False},
    {"kernel_dilation": 2, "padding": [(1, 2), (0, 1)]},
    {"feature_group_count": 2, "padding": "CIRCULAR"},
    {"strides": None, "kernel_dilation": (2, 1), "padding": "same"},
    {"padding": "REFLECT", "dtype": jnp.bfloat16, "param_dtype": jnp.float32},
]


@pytest.mark.parametrize(
    ("geometry", "scale"), [*zip(GEOMETRIES, ["standardized", "learned", None] * 2, strict=True)]
)
def test_forward_is_that_of_a_network_made_by_hand(geometry, scale):
    rngs = nnx.Rngs(1)
    conv = nnx.Conv(4, 6, (3, 2), bias_init=nnx.initializers.normal(), rngs=rngs, **geometry)
    dense = nnx.Linear(6, 5, rngs=rngs)
    first, last = nnx.Conv(3, 4, (1, 1), rngs=rngs), nnx.Linear(5, 2, rngs=rngs)
    binary = ovsw.binarize(nnx.Sequential(first, conv, dense, last), scale=scale)

    by_hand = dict(geometry)
    if by_hand.get("strides", 1) is None:
        by_hand |= {"strides": 1, "padding": "SAME"}
    use_bias = by_hand.pop("use_bias", True)
    hand_conv = ovsw.nn.BinaryConv(
        4, 6, (3, 2), use_bias=use_bias, scale=scale, rngs=nnx.Rngs(2), **by_hand
    )
    hand_dense = ovsw.nn.BinaryDense(6, 5, use_bias=True, scale=scale, rngs=nnx.Rngs(2))
    for hand, layer in ((hand_conv, conv), (hand_dense, dense)):
        hand.latent_kernel[...] = layer.kernel[...]
        if layer.bias is not None:
            hand.bias[...] = layer.bias[...]
        if scale == "learned":
            kernel = np.asarray(layer.kernel[...])
            hand.filter_scale[...] = np.abs(kernel).mean(axis=tuple(range(kernel.ndim - 1)))
    x = images()
    y, by_hand = binary(x), last(hand_dense(hand_conv(first(x))))
    assert y.dtype == by_hand.dtype
    np.testing.assert_allclose(y, by_hand, rtol=1e-5, atol=1e-6)
    assert hand_conv(first(x)).shape == conv(first(x)).shape
    np.testing.assert_array_equal(binary.layers[0](x), first(x))


@pytest.mark.long
def test_the_network_trains_with_ovsw_and_reports_flips_under_its_own_names():
    model = ovsw.binarize(ordinary())
    tx = ovsw.ovsw_sgd(0.5, lam=0.5)
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    before = values(model)

    @nnx.jit
    def step(model, optimizer, x, labels):
        def loss(model):
            logits = model(x)
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

        optimizer.update(model, nnx.grad(loss)(model))

    for seed in range(3):
        step(model, optimizer, images(seed), jnp.array([0, 2]))
    metrics = ovsw.flip_metrics(optimizer.opt_state)
    assert set(metrics) == {*INNER, "total"}
    assert metrics["total"]["never_flipped_ratio"] < 1
    changed = jax.tree.map(lambda a, b: bool(np.any(a != b)), before, values(model))
    assert all(jax.tree.leaves(changed["blocks"]))
    assert changed["stem"]["kernel"]


def test_where_is_asked_once_for_each_layer_with_path_and_module():
    model = ordinary()
    asked = []

    def where(path, layer):
        asked.append((path, layer))
        return layer is model.classify or path[0] == "stem"

    binary = ovsw.binarize(model, where=where)
    assert set(layers(binary, BINARY)) == {"stem", "classify"}
    names = ["stem", *INNER, "classify"]
    assert ["/".join(map(str, path)) for path, _ in asked] == names
    assert asked[2][0] == ("blocks", 0, "narrow")
    assert all(isinstance(layer, nnx.Conv | nnx.Linear) for _, layer in asked)


class Shared(nnx.Module):
    def __init__(self, rngs, *, tied_to_last=False):
        self.z_first = nnx.Linear(4, 4, rngs=rngs)
        self.middle = nnx.Linear(4, 4, rngs=rngs)
        self.again = nnx.List([self.middle])
        self.tied = nnx.Linear(4, 4, rngs=rngs)
        self.tied.kernel = self.middle.kernel
        self.a_last = nnx.Linear(4, 4, rngs=rngs)
        if tied_to_last:
            self.a_last.kernel = self.middle.kernel


def test_what_was_shared_stays_shared():
    model = Shared(nnx.Rngs(0))
    asked = []
    ovsw.binarize(model, where=lambda path, _: asked.append(path) or True)
    assert asked == [("z_first",), ("middle",), ("tied",), ("a_last",)]
    binary = ovsw.binarize(model)
    assert isinstance(binary.middle, ovsw.nn.BinaryDense)
    assert binary.again[0] is binary.middle
    assert binary.tied is not binary.middle
    assert binary.tied.latent_kernel is binary.middle.latent_kernel
    assert type(binary.z_first) is type(binary.a_last) is nnx.Linear


class Containers(nnx.Module):
    """Every kind of container that Flax takes, with one layer in all of them."""

    def __init__(self, rngs):
        self.frozen = nnx.data(flax.core.FrozenDict({"x": nnx.Linear(4, 4, rngs=rngs)}))
        self.layer = self.frozen["x"]
        self.ordered = nnx.data(OrderedDict(z=nnx.Linear(4, 4, rngs=rngs), a=self.layer))
        self.named = nnx.data(Pair(self.layer, nnx.Linear(4, 4, rngs=rngs)))
        self.modules = nnx.Dict({"0": self.layer, "list": nnx.List([self.layer])})


Pair = namedtuple("Pair", "first second")


def test_layers_in_containers_of_every_kind():
    model = Containers(nnx.Rngs(0))
    asked = []
    binary = ovsw.binarize(model, where=lambda path, _: asked.append(path) or True)
    assert asked == [("frozen", "x"), ("ordered", "z"), ("named", "second")]
    one = binary.layer
    assert isinstance(one, ovsw.nn.BinaryDense)
    assert one is binary.frozen["x"] is binary.ordered["a"] is binary.named.first
    assert one is binary.modules["0"] is binary.modules["list"][0]
    assert list(map(type, (binary.ordered, binary.named))) == [OrderedDict, Pair]
    assert isinstance(binary.named.second, ovsw.nn.BinaryDense)
    assert type(model.layer) is type(model.named.second) is nnx.Linear


def test_abstract_models():
    shapes = jax.tree.map(jnp.shape, nnx.state(ovsw.binarize(ordinary(), scale="learned")))
    inside = nnx.eval_shape(lambda: ovsw.binarize(Net(nnx.Rngs(0)), scale="learned"))
    outside = ovsw.binarize(nnx.eval_shape(lambda: Net(nnx.Rngs(0))), scale="learned")
    for model in (inside, outside):
        assert set(layers(model, BINARY)) == set(INNER)
        leaves = jax.tree.leaves(nnx.state(model))
        assert all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in leaves)
        assert jax.tree.map(lambda x: x.shape, nnx.state(model)) == shapes


def test_binarised_before_it_is_stacked():
    @nnx.vmap
    def make(key):
        return ovsw.binarize(Net(nnx.Rngs(key)))

    def outputs():
        stack = make(jax.random.split(jax.random.key(0), 2))
        y = nnx.vmap(lambda model, x: model(x), in_axes=(0, None))(stack, images())
        return stack.blocks[0].widen.latent_kernel[...], y

    kernel, y = nnx.eval_shape(outputs)
    assert kernel.shape == (2, 3, 3, 4, 8)
    assert y.shape == (2, 2, 3)


def test_the_new_layers_are_in_training_or_evaluation_as_the_model_is():
    model = nnx.clone(ordinary())
    assert not any(m.deterministic for m in layers(ovsw.binarize(model), BINARY).values())
    model.eval()
    binary = ovsw.binarize(model)
    assert all(m.deterministic for m in layers(binary, BINARY).values())
    assert binary.dropout.deterministic
    assert binary.blocks[0].norm.use_running_average
    model.dropout.deterministic = False
    assert not any(m.deterministic for m in layers(ovsw.binarize(model), BINARY).values())


def test_metadata_of_parameters_stays():
    rngs = nnx.Rngs(0)
    conv = nnx.Linear(2, 2, kernel_metadata={"note": "as given"}, rngs=rngs)
    model = nnx.Sequential(nnx.Linear(2, 2, rngs=rngs), conv, nnx.Linear(2, 2, rngs=rngs))
    assert ovsw.binarize(model).layers[1].latent_kernel.note == "as given"


def test_options_go_to_the_layers():
    model = ordinary()
    binary = ovsw.binarize(
        model,
        scale=ovsw.nn.mean_magnitude,
        input_sign=partial(ovsw.nn.LearnedThresholdSign, sign=ovsw.nn.ste_sign),
        kernel_sign=ovsw.nn.clipped_ste_sign,
        normalize_input=False,
    )
    found = layers(binary, BINARY)
    assert all(m.kernel_sign is ovsw.nn.clipped_ste_sign for m in found.values())
    assert all(m.scale is ovsw.nn.mean_magnitude for m in found.values())
    assert not any(m.normalize_input for m in found.values())
    signs = [m.input_sign for m in found.values()]
    assert [s.threshold.shape[0] for s in signs] == [m.in_features for m in found.values()]
    assert len({id(s) for s in signs}) == len(INNER)
    assert np.isfinite(binary(images())).all()


def test_binary_activations_alone():
    model = ordinary()
    binary = ovsw.binarize(model, kernel_sign=None, scale=None)
    widen = binary.blocks[0].widen
    np.testing.assert_array_equal(widen.kernel[...], model.blocks[0].widen.kernel[...])
    assert not hasattr(widen, "latent_kernel")
    assert np.isfinite(binary(images())).all()


def test_what_is_no_nnx_module():
    linen = flax.linen.Dense(3)
    with pytest.raises(TypeError, match=r"got a linen module \(Dense\).*ovsw.linen.BinaryConv"):
        ovsw.binarize(linen)
    params = linen.init(jax.random.key(0), jnp.ones((1, 2)))["params"]
    with pytest.raises(TypeError, match=r"got a tree of parameters. Give the module"):
        ovsw.binarize(params)
    with pytest.raises(TypeError, match=r"got the class Net; .*Net\(rngs=nnx.Rngs\(0\)\)"):
        ovsw.binarize(Net)
    with pytest.raises(TypeError, match=r"takes a Flax NNX module, but got int"):
        ovsw.binarize(3)


def test_nothing_to_replace():
    model = ordinary()
    with pytest.raises(
        ValueError,
        match=r"nothing in Net .* 8 nnx.Conv or nnx.Linear \(stem, blocks/0/widen.*\), "
        r"and where= returned False for each. Give where=",
    ):
        ovsw.binarize(model, where=lambda path, layer: False)
    small = nnx.eval_shape(lambda: ovsw.models.SmallResNet(rngs=nnx.Rngs(0)))
    with pytest.raises(ValueError, match=r"\(conv1, linear\), and the first and the last stay"):
        ovsw.binarize(small)
    with pytest.raises(ValueError, match=r"BatchNorm has no nnx.Conv .* of the classes BatchNorm"):
        ovsw.binarize(nnx.BatchNorm(3, rngs=nnx.Rngs(0)))


def test_where_must_be_a_function_that_gives_a_bool():
    message = r"where\(\('stem',\), Conv\) returned None, which is not a bool. It must return True"
    with pytest.raises(TypeError, match=message):
        ovsw.binarize(ordinary(), where=lambda path, layer: None)
    with pytest.raises(TypeError, match=r"where=\[\('stem',\)\] can't be called: give a function"):
        ovsw.binarize(ordinary(), where=[("stem",)])


def test_options_that_are_none():
    model = ordinary()
    with pytest.raises(TypeError, match=r"strides= is not an option .*input_sign.*scale.*stays"):
        ovsw.binarize(model, strides=2)
    sign = ovsw.nn.LearnedThresholdSign(4, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"one LearnedThresholdSign.*Give its class, input_sign="):
        ovsw.binarize(model, input_sign=sign, normalize_input=False)
    with pytest.raises(ValueError, match=r"blocks/0/widen .*scale='max' is unknown"):
        ovsw.binarize(model, scale="max")
    with pytest.raises(ValueError, match=r"blocks/0/widen .*kernel_sign=LearnedThresholdSign is"):
        ovsw.binarize(model, kernel_sign=ovsw.nn.LearnedThresholdSign)


@pytest.mark.parametrize("make", [ordinary, lambda: nnx.eval_shape(ordinary)])
def test_one_sharpening_sign_is_shared_by_all_layers(make):
    sharp = ovsw.nn.SharpeningSign(0.1)
    binary = ovsw.binarize(make(), input_sign=sharp, kernel_sign=sharp)
    found = layers(binary, BINARY).values()
    assert len(found) == len(INNER)
    assert all(m.input_sign is m.kernel_sign is sharp for m in found)
    assert sharp.sharpness[...] == np.float32(0.1)


@pytest.mark.parametrize("name", ["input_sign", "kernel_sign"])
@pytest.mark.parametrize(
    "sign", [ovsw.nn.SharpeningSign, partial(ovsw.nn.SharpeningSign, 0.1)], ids=["class", "partial"]
)
def test_the_class_of_a_shared_sign_is_refused(name, sign):
    message = rf"{name}=SharpeningSign is a class: make an object .*{name}=ovsw.nn.SharpeningSign\("
    with pytest.raises(ValueError, match=message):
        ovsw.binarize(ordinary(), **{name: sign})


def test_kernels_that_others_work_with():
    with pytest.raises(ValueError, match=r"middle .* a_last \(Linear\) shares its kernel. Give it"):
        ovsw.binarize(Shared(nnx.Rngs(0), tied_to_last=True))
    rngs = nnx.Rngs(0)
    model = nnx.List([nnx.WeightNorm(nnx.Linear(4, 4, rngs=rngs), rngs=rngs)])
    with pytest.raises(ValueError, match=r"0 \(WeightNorm\) normalises its kernel"):
        ovsw.binarize(model, where=lambda path, _: True)
