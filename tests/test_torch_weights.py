"""State dicts of PyTorch: names and layouts against the reference, round trips, and refusals."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given
from hypothesis import strategies as st
from scipy.signal import correlate

import ovsw_jax as ovsw
from ovsw_jax.models import TorchNames, load_torch, torch_state_dict
from tests import golden

NETWORKS = {
    "CifarResNet20": lambda rngs: ovsw.models.CifarResNet20(10, rngs=rngs),
    "CifarResNet18": lambda rngs: ovsw.models.CifarResNet18(100, rngs=rngs),
    "ResNet18": lambda rngs: ovsw.models.ResNet18(rngs=rngs),
    "ResNet34": lambda rngs: ovsw.models.ResNet34(rngs=rngs),
    "VGGSmall": lambda rngs: ovsw.models.VGGSmall(10, rngs=rngs),
    "real": lambda rngs: ovsw.models.SmallResNet(
        3, widths=(4, 8), conv=nnx.Conv, activation=nnx.relu, rngs=rngs
    ),
}


def outlined(make):
    return nnx.eval_shape(lambda: make(nnx.Rngs(0)))


class Plain(nnx.Module):
    """Layers of every kind that has a layout of its own, named otherwise than in PyTorch."""

    def __init__(self, rngs):
        self.stem = nnx.Conv(3, 4, (3, 2), padding="VALID", rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.groups = nnx.Conv(4, 6, (1, 1), feature_group_count=2, rngs=rngs)
        self.act = ovsw.nn.PReLU(6, rngs=rngs)
        self.head = nnx.Linear(6 * 3 * 4, 5, rngs=rngs)

    def __call__(self, x):
        x = self.act(self.groups(self.norm(self.stem(x))))
        return self.head(x.reshape(len(x), -1))


TABLE = TorchNames(
    {"stem": "features.0", "norm": "features.1", "groups": "features.2", "act": "features.3"},
    flattened={"head": (6, 3, 4)},
)


def plain_in_numpy(state_dict, x):
    """`Plain` on (batch, channels, height, width), by PyTorch's definitions of the layers."""

    def of(name):
        return np.asarray(state_dict[name], np.float64)

    def convolved(x, name, groups=1):
        kernel = of(f"{name}.weight")
        kernels, images = np.split(kernel, groups), np.split(x, groups, axis=1)
        outs = [
            np.stack([[correlate(i, k, "valid")[0] for k in ks] for i in xs])
            for xs, ks in zip(images, kernels, strict=True)
        ]
        return np.concatenate(outs, axis=1) + of(f"{name}.bias")[:, None, None]

    x = convolved(x, "features.0")
    mean, var, scale, bias = (
        of(f"features.1.{n}")[:, None, None]
        for n in ("running_mean", "running_var", "weight", "bias")
    )
    x = convolved((x - mean) / np.sqrt(var + 1e-5) * scale + bias, "features.2", groups=2)
    x = np.where(x >= 0, x, of("features.3.weight")[:, None, None] * x)
    return x.reshape(len(x), -1) @ of("head.weight").T + of("head.bias")


def drawn(model, names=None, seed=0):
    """A state dict of random numbers for a network."""
    rng = np.random.default_rng(seed)
    shapes = {k: x.shape for k, x in torch_state_dict(model, names).items()}
    return {k: rng.uniform(0.1, 1, shape).astype(np.float32) for k, shape in shapes.items()}


def test_a_network_of_ones_own_computes_what_pytorch_would(float64):
    model = Plain(nnx.Rngs(0))
    state_dict = drawn(model, TABLE)
    assert load_torch(model, state_dict, TABLE) == ((), ())
    x = np.random.default_rng(1).normal(size=(2, 3, 5, 5))
    model.eval()
    actual = model(jnp.asarray(np.moveaxis(x, 1, -1)))
    np.testing.assert_allclose(actual, plain_in_numpy(state_dict, x), rtol=1e-5)


def test_the_state_dict_of_the_reference_fits_whole():
    """All arrays of the authors' ResNet20 at its start, each at its place."""
    data = golden.load("model_step")
    left_out = ("tracker", "weight_prev")  # of the reference, and of the network
    names = [str(name) for name in data["state_order"]]
    state_dict = {
        name: np.zeros(3) if name.endswith(left_out) else data[f"init/{name}"] for name in names
    }
    model = outlined(NETWORKS["CifarResNet20"])
    assert load_torch(model, state_dict) == ((), ())
    kernel = model.layer2[0].conv1.latent_kernel[...]
    assert np.array_equal(kernel[1, 2, 3, 4], state_dict["layer2.0.conv1.weight"][4, 3, 1, 2])
    np.testing.assert_array_equal(model.bn1.var[...], state_dict["bn1.running_var"])
    counted = (*left_out, "num_batches_tracked")
    assert {*torch_state_dict(model)} == {n for n in names if not n.endswith(counted)}


@pytest.mark.parametrize(
    ("network", "reference"),
    [
        ("CifarResNet20", "cResNet20"),
        ("CifarResNet18", "cResNet18"),
        ("VGGSmall", "VGGSmall"),
        ("ResNet18", "ResNet18"),
    ],
)
def test_parameters_are_named_as_in_the_reference(network, reference):
    data = golden.load("models")
    names = [str(n) for n in data[f"model/{reference}/param_names"]]
    classes = {"CifarResNet18": lambda rngs: ovsw.models.CifarResNet18(10, rngs=rngs)}
    model = outlined(classes.get(network, NETWORKS[network]))
    shapes = shapes_of(model)
    ours = {name: shape for name, shape in shapes.items() if "running" not in name}
    theirs = [re.findall(r"\d+", str(s)) for s in data[f"model/{reference}/param_shapes"]]
    assert ours == {n: tuple(map(int, s)) for n, s in zip(names, theirs, strict=True)}


def shapes_of(model):
    """PyTorch's names and shapes; `model` may be an outline."""
    state = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), nnx.state(model))
    nnx.update(model, state)
    return {name: x.shape for name, x in torch_state_dict(model).items()}


@pytest.mark.parametrize("network", NETWORKS)
def test_every_network_makes_the_round_trip(network):
    model = outlined(NETWORKS[network])
    shapes = shapes_of(model)
    rng = np.random.default_rng(0)
    state_dict = {n: rng.random(shape, np.float32) for n, shape in shapes.items()}
    load_torch(model, state_dict)
    found = torch_state_dict(model)
    assert found.keys() == state_dict.keys()
    for name, array in state_dict.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


parts = st.text("abxy01", min_size=1, max_size=3)


@st.composite
def tables(draw):
    """New names for some of the layers of `Plain`, all different."""
    layers = draw(st.sets(st.sampled_from(["stem", "norm", "groups", "act", "head"])))
    named = st.lists(parts, min_size=1, max_size=3).map(".".join)
    theirs = draw(st.lists(named, min_size=len(layers), max_size=len(layers), unique=True))
    renamed = {ours: f"net.{name}" for ours, name in zip(sorted(layers), theirs, strict=True)}
    image = draw(st.sampled_from([None, (6, 3, 4), (6, 4, 3), (12, 6, 1), (1, 1, 72)]))
    return TorchNames(renamed, {} if image is None else {"head": image})


@pytest.fixture(scope="module")
def plain():
    return Plain(nnx.Rngs(0))


@given(names=tables(), seed=st.integers(0, 99), dtype=st.sampled_from([np.float32, np.float64]))
def test_any_table_makes_the_round_trip(names, seed, dtype, plain):
    model = nnx.clone(plain)
    state_dict = {k: x.astype(dtype) for k, x in drawn(model, names, seed).items()}
    load_torch(model, state_dict, names)
    found = torch_state_dict(model, names)
    assert found.keys() == state_dict.keys()
    for name, array in found.items():
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, state_dict[name])
    for part in names.renamed.values():
        assert any(name.startswith(f"{part}.") for name in found)


@given(data=st.data())
def test_what_only_one_side_has_is_named(data, plain):
    model = nnx.clone(plain)
    before = nnx.state(model)
    whole = drawn(model, TABLE)
    lost = data.draw(st.sets(st.sampled_from(sorted(whole)), max_size=3))
    others = data.draw(st.sets(st.sampled_from(["a.weight", "bn9.bias", "head.scale"])))
    given = {k: x for k, x in whole.items() if k not in lost} | {k: np.ones(2) for k in others}
    if lost or others:
        with pytest.raises(ValueError, match=r"names of Plain and state_dict differ: the") as error:
            load_torch(model, given, TABLE)
        assert all(name in str(error.value) for name in lost | others)
        for x, y in zip(*map(jax.tree.leaves, (before, nnx.state(model))), strict=True):
            np.testing.assert_array_equal(x, y)
    missing, unexpected = load_torch(model, given, TABLE, strict=False)
    assert (set(missing), set(unexpected)) == (lost, others)
    after = torch_state_dict(model, TABLE)
    assert all(np.array_equal(after[k], whole[k]) for k in whole.keys() - lost)


@pytest.mark.parametrize("shape", [(4,), (1, 4), (4, 1, 1), (1, 4, 1, 1)])
def test_a_vector_may_have_axes_of_one(shape, plain):
    model = nnx.clone(plain)
    given = {**drawn(model, TABLE), "features.1.bias": np.arange(4.0).reshape(shape)}
    load_torch(model, given, TABLE)
    assert model.norm.bias[...].tolist() == [0, 1, 2, 3]


def test_dtypes_are_those_of_the_network():
    model = nnx.BatchNorm(2, param_dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    load_torch(model, drawn(model, TorchNames()), TorchNames())
    assert model.scale.dtype == jnp.bfloat16
    assert model.mean.dtype == np.float32


class Others(nnx.Module):
    def __init__(self, rngs):
        self.up = nnx.ConvTranspose(2, 2, (3, 3), rngs=rngs)
        self.head = nnx.Linear(2, 2, rngs=rngs)


def test_kernels_of_another_layout_are_left_to_the_user():
    """That of a ConvTranspose has the same shape for equal channels, and other axes."""
    model = Others(nnx.Rngs(0))
    state_dict = {"up.weight": np.ones((2, 2, 3, 3)), "up.bias": np.ones(2)}
    state_dict |= {"head.weight": np.ones((2, 2)), "head.bias": np.ones(2)}
    before = np.asarray(model.up.kernel[...])
    with pytest.raises(ValueError, match=r"up.weight is of an nnx.ConvTranspose, .*strict=False"):
        load_torch(model, state_dict, TorchNames())
    found = load_torch(model, state_dict, TorchNames(), strict=False)
    assert found == (("up.weight",), ("up.weight",))
    np.testing.assert_array_equal(model.up.kernel[...], before)
    np.testing.assert_array_equal(model.up.bias[...], 1)
    assert "up.weight" not in torch_state_dict(model, TorchNames())


def changed(**entries):
    return lambda whole: {**whole, **{k.replace("__", "."): x for k, x in entries.items()}}


WRONG = {
    r"state_dict has head.weight of shape \(4, 72\), and the network needs \(5, 72\) \(its head/"
    r"kernel is \(72, 5\)\).*head of other classes": changed(head__weight=np.ones((4, 72))),
    r"head.bias of shape \(\), and the network needs \(5,\)": changed(head__bias=np.ones(())),
    r"head.bias that holds NaN": changed(head__bias=np.full(5, np.nan)),
    r"head.bias that holds numbers beyond float32": changed(head__bias=np.full(5, 1e300)),
    r"head.bias that holds numbers beyond float": changed(head__bias=np.full(5, -np.inf)),
    r"head.bias of dtype <U1, which holds no real": changed(head__bias=np.array(["a"] * 5)),
    r"head.bias of dtype complex": changed(head__bias=np.ones(5, complex)),
    r"Every name of it begins with 'module\.': remove that": lambda whole: {
        f"module.{k}": x for k, x in whole.items()
    },
    r"state_dict is a list, and must map": list,
    r"state_dict is a dict, and must map": lambda whole: {1: 2},
}


@pytest.mark.parametrize("message", WRONG)
def test_entries_that_do_not_fit(message, plain):
    with pytest.raises((ValueError, TypeError), match=message):
        load_torch(nnx.clone(plain), WRONG[message](drawn(plain, TABLE)), TABLE)


def test_a_tensor_that_numpy_refuses(plain):
    class Tensor:
        def __array__(self, *args, **kwargs):
            raise RuntimeError("it requires grad")

    given = {**drawn(plain, TABLE), "head.bias": Tensor()}
    with pytest.raises(TypeError, match=r"head.bias that is no array \(it requires grad\).*detach"):
        load_torch(nnx.clone(plain), given, TABLE)


BAD_TABLES = {
    r"renamed=\['a'\] is no mapping": {"renamed": ["a"]},
    r"renamed holds 'a': ''": {"renamed": {"a": ""}},
    r"flattened holds 'head': \(4, 4\)": {"flattened": {"head": (4, 4)}},
    r"ignored='tracker' must be a tuple": {"ignored": "tracker"},
    r"names calls both groups/bias and stem/bias 'x.bias'": {
        "renamed": {"stem": "x", "groups": "x"}
    },
    r"flattened holds 'body', and the network has no kernel there": {
        "flattened": {"body": (1, 1, 72)}
    },
    r"flattened holds 'head': \(6, 3, 3\), 54 numbers, and the kernel there is \(72, 5\)": {
        "flattened": {"head": (6, 3, 3)}
    },
}


@pytest.mark.parametrize("message", BAD_TABLES)
def test_tables_that_can_not_be(message, plain):
    with pytest.raises((ValueError, TypeError), match=message):
        torch_state_dict(plain, TorchNames(**BAD_TABLES[message]))


def test_networks_without_a_table(plain):
    with pytest.raises(ValueError, match=r"the names of a Plain in PyTorch are not known: give"):
        torch_state_dict(plain)
    with pytest.raises(TypeError, match=r"names=\{\} is no ovsw.models.TorchNames"):
        torch_state_dict(plain, {})
    with pytest.raises(TypeError, match=r"model is 3, and must be an NNX module"):
        load_torch(3, {})


def test_a_table_can_be_extended():
    table = dataclasses.replace(TABLE, renamed={**TABLE.renamed, "act.negative_slope": "act.slope"})
    assert table.of(("act", "negative_slope")) == "act.slope"
    assert table.of(("blocks", 0, "act", "bias")) == "blocks.0.features.3.bias"
    assert TorchNames({"a.b": "x", "a": "y"}).of(("a", "b", "a", "kernel")) == "x.y.weight"
