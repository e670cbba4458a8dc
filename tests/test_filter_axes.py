"""Axes of one filter, asked of the layers: of stacks, of attention, in NNX and in linen."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from flax import linen, nnx
from hypothesis import given
from hypothesis import strategies as st

import ovsw_jax as ovsw
from ovsw_jax.stacks import Kernel, in_stack

LAM = 0.3


def dense(rngs):
    return ovsw.nn.BinaryDense(4, 5, rngs=rngs)


def conv(rngs):
    return ovsw.nn.BinaryConv(4, 6, (3, 2), feature_group_count=2, rngs=rngs)


def conv_1d(rngs):
    return ovsw.nn.BinaryConv(4, 6, 3, rngs=rngs)


def renamed(layer):
    """A layer of Flax that holds its kernel as a latent one."""
    layer.latent_kernel = layer.kernel
    del layer.kernel
    return layer


def heads_out(rngs):
    return renamed(nnx.LinearGeneral((2, 3), 4, axis=(-2, -1), rngs=rngs))


class Own(nnx.Module):
    """Of a user, with output features first."""

    kernel_shape = (6, 4)
    filter_axes = (-1,)

    def __init__(self, rngs):
        self.latent_kernel = nnx.Param(rngs.normal((6, 4)))


def stack(make, *sizes, out_axes=0):
    """Layers stacked along new axes, the last of `sizes` innermost."""
    for size in reversed(sizes):
        make = functools.partial(_stacked, make, size, out_axes)
    return make(nnx.Rngs(0))


def _stacked(make, size, out_axes, rngs):
    return nnx.vmap(make, out_axes=out_axes)(rngs.split(size))


def scanned():
    @nnx.split_rngs(splits=7)
    @nnx.scan(in_axes=(nnx.Carry, 0), out_axes=(nnx.Carry, 0))
    def make(x, rngs):
        return x, dense(rngs)

    return make(0.0, nnx.Rngs(0))[1]


# What makes a layer, the axes along which it is stacked, and those of one filter in one layer.
STACKS = {
    "one layer": (lambda: dense(nnx.Rngs(0)), (), (0,)),
    "a 1-D convolution": (lambda: conv_1d(nnx.Rngs(0)), (), (0, 1)),
    "vmap": (lambda: stack(dense, 7), (0,), (0,)),
    "scan": (scanned, (0,), (0,)),
    "groups": (lambda: stack(conv, 7), (0,), (0, 1, 2)),
    "1-D, of rank 4": (lambda: stack(conv_1d, 7), (0,), (0, 1)),
    "out_axes=1": (lambda: stack(conv, 7, out_axes=1), (1,), (0, 1, 2)),
    "out_axes=-1": (lambda: stack(dense, 7, out_axes=-1), (2,), (0,)),
    "two axes, of rank 4": (lambda: stack(dense, 7, 3), (0, 1), (0,)),
    "a layer of one": (lambda: stack(dense, 1), (0,), (0,)),
    "heads": (lambda: renamed(nnx.LinearGeneral(4, (2, 3), rngs=nnx.Rngs(0))), (), (0,)),
    "stacked heads": (lambda: stack(heads_out, 7), (0,), (0, 1)),
    "a user's": (lambda: stack(Own, 7), (0,), (1,)),
}


@pytest.mark.parametrize("name", STACKS)
def test_each_filter_of_each_layer_is_scaled_by_itself(name):
    make, stacked, axes = STACKS[name]
    model = nnx.eval_shape(make)
    rng = np.random.default_rng(0)
    weight = rng.standard_normal(model.latent_kernel.shape).astype(np.float32)
    gradient = rng.standard_normal(weight.shape) * 10 ** rng.uniform(-2, 0, weight.shape)
    sizes = [n for i, n in enumerate(weight.shape) if i in stacked]
    layers = [np.moveaxis(x, stacked, range(len(stacked))) for x in (gradient, weight)]
    expected = np.empty_like(layers[0])
    rescaled = []
    for layer in np.ndindex(*sizes):
        filters = oracle.ags(*(x[layer] for x in layers), LAM, axes)
        expected[layer] = filters.gradient
        rescaled.append(filters.rescaled)
    tx = ovsw.ags(LAM, axes=ovsw.filter_axes(model))
    params = {"latent_kernel": weight}
    scaled, state = jax.jit(tx.update)(
        {"latent_kernel": jnp.float32(gradient)}, tx.init(params), params
    )
    found = np.moveaxis(scaled["latent_kernel"], stacked, range(len(stacked)))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert 0 < np.mean(rescaled) < 1
    assert float(state.rescaled_filter_ratio["latent_kernel"]) == pytest.approx(np.mean(rescaled))
    assert int(state.filters["latent_kernel"]) == np.size(rescaled)


def kernels(params):
    return jax.tree_util.tree_map_with_path(
        lambda path, _: "kernel" in jax.tree_util.keystr(path), params
    )


def test_ordinary_layers_that_a_mask_selects():
    rngs = nnx.Rngs(0)
    model = nnx.Dict(
        attention=nnx.MultiHeadAttention(2, 8, qkv_features=6, rngs=rngs, decode=False),
        batched=nnx.LinearGeneral(3, (2, 5), batch_axis={0: 4}, rngs=rngs),
        layers=nnx.List([nnx.Linear(2, 3, rngs=rngs), nnx.Conv(2, 3, (3,), rngs=rngs)]),
        up=nnx.vmap(lambda r: nnx.ConvTranspose(2, 3, (4,), transpose_kernel=True, rngs=r))(
            rngs.split(5)
        ),
        down=nnx.ConvTranspose(2, 3, (4,), rngs=rngs),
        einsum=nnx.Einsum("nta, hba -> nthb", (2, 3, 4), rngs=rngs),
    )
    found = ovsw.filter_axes(nnx.eval_shape(lambda: model), mask=kernels)
    assert found == {
        "attention": {
            **{key: {"kernel": (0,)} for key in ("query", "key", "value")},
            "out": {"kernel": (0, 1)},
        },
        "batched": {"kernel": (1,)},
        "layers": {0: {"kernel": (0,)}, 1: {"kernel": (0, 1)}},
        "up": {"kernel": (1, 3)},  # (layers, window, out, in)
        "down": {"kernel": (0, 1)},
        "einsum": {"kernel": (2,)},
    }


class Kind(nnx.Variable):
    pass


class Holder(nnx.Pytree):
    """No module."""

    def __init__(self):
        self.latent_kernel = nnx.data({"a": nnx.Param(jnp.ones((2, 3)))})


def test_where_latent_kernels_are_found():
    """At each place of `nnx.state`, shared ones once, of the Variables that are trained."""
    model = nnx.Dict(layers=nnx.List([dense(nnx.Rngs(0)), dense(nnx.Rngs(1))]), a=Own(nnx.Rngs(0)))
    model.layers[1].latent_kernel = model.layers[0].latent_kernel
    model.a.latent_kernel = Kind(jnp.ones((6, 4)))
    model.held = nnx.Param(jnp.ones((2, 3)))
    assert ovsw.filter_axes(model) == {"layers": {0: {"latent_kernel": (0,)}}}
    assert ovsw.filter_axes(model, wrt=Kind) == {"a": {"latent_kernel": (1,)}}
    assert ovsw.filter_axes(model, mask={"held": True, "layers": False}) == {"held": (0,)}
    model.held = nnx.List([nnx.Param(jnp.ones((2, 3)))])
    assert ovsw.filter_axes(model, mask={"held": True, "layers": False}) == {"held": {0: (0,)}}
    model.held = Holder()
    assert ovsw.filter_axes(model)["held"] == {"latent_kernel": {"a": (0,)}}
    assert ovsw.layer_axes(stack(conv, 7)) == {"latent_kernel": (1, 2, 3, 4)}


def square():
    return stack(lambda rngs: ovsw.nn.BinaryDense(4, 4, rngs=rngs), 4)


def test_a_stack_that_its_shape_does_not_tell():
    message = (
        r"latent weights at 'latent_kernel' \(BinaryDense\) have shape \(4, 4, 4\), which may be "
        r"kernels of shape \(4, 4\) stacked along axis 0 or axis 1 or axis 2.*Give stacked=0 if"
    )
    with pytest.raises(ValueError, match=message + r".*attribute stacked_axes"):
        ovsw.filter_axes(square())
    for stacked, filters in ((0, (1,)), ((-2,), (0,)), ([2], (0,))):
        assert ovsw.filter_axes(square(), stacked=stacked) == {"latent_kernel": filters}
    model = square()
    model.stacked_axes = 0
    assert ovsw.layer_axes(model) == {"latent_kernel": (1, 2)}
    with pytest.raises(ValueError, match=r"axis 2, but stacked=\(0, 1\)\. Give stacked=0"):
        ovsw.filter_axes(model, stacked=(0, 1))
    with pytest.raises(TypeError, match=r"stacked='0' must be an axis or a tuple of axes"):
        ovsw.filter_axes(model, stacked="0")
    assert ovsw.filter_axes(stack(dense, 7), stacked=1) == {"latent_kernel": (1,)}  # it does tell


def shared_by(*layers):
    for layer in layers[1:]:
        layer.latent_kernel = layers[0].latent_kernel
    return nnx.List(layers)


def changed(layer, **attributes):
    for name, value in attributes.items():
        setattr(layer, name, value)
    return layer


def only(shape):
    return nnx.Dict(latent_kernel=nnx.Param(jnp.ones(shape)))


REFUSED = {
    "no say": (
        lambda: nnx.Dict(a=only((2, 3, 4))),
        r"at 'a/latent_kernel' \(Dict\) have shape \(2, 3, 4\), and the layer doesn't.*two attri",
    ),
    "no stack": (
        lambda: changed(dense(nnx.Rngs(0)), latent_kernel=nnx.Param(jnp.ones((5, 4)))),
        r"have shape \(5, 4\), which is no stack of kernels of shape \(4, 5\), as the layer says",
    ),
    "no kernel_shape": (
        lambda: changed(only((2, 3, 4)), filter_axes=(0,)),
        r"has filter_axes=\(0,\) and no kernel_shape.*Set kernel_shape",
    ),
    "other axes": (
        lambda: changed(Own(nnx.Rngs(0)), filter_axes=(2,)),
        r"filter_axes=\(2,\), which must be a tuple of axes of a kernel of shape \(6, 4\)",
    ),
    "shared": (
        lambda: shared_by(ovsw.nn.BinaryDense(6, 4, rngs=nnx.Rngs(0)), Own(nnx.Rngs(0))),
        r"share .* at '0/latent_kernel' and take other .* \(0,\) by 0/late.*, \(1,\) by 1/late",
    ),
    "no sum": (
        lambda: renamed(nnx.Einsum("na,ab->nab", (4, 5), rngs=nnx.Rngs(0))),
        r"\(Einsum\) have shape \(4, 5\), and the layer doesn't say",
    ),
    "nothing": (lambda: nnx.Linear(2, 3, rngs=nnx.Rngs(0)), r"Linear has no latent weights among"),
}


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"filter_axes": (0, -2)}, r"filter_axes=\(0, -2\), which must be .* each once"),
        ({"filter_axes": (True,)}, r"filter_axes=\(True,\), which must be a tuple of axes"),
        ({"kernel_shape": 6}, "kernel_shape=6, which must be a tuple of integers"),
    ],
)
def test_what_a_layer_says_must_be_a_shape_and_its_axes(said, message):
    with pytest.raises(ValueError, match=message):
        ovsw.filter_axes(changed(Own(nnx.Rngs(0)), **said))


def test_a_bool_is_no_axis_of_a_stack():
    with pytest.raises(TypeError, match="stacked=True must be an axis"):
        ovsw.filter_axes(Own(nnx.Rngs(0)), stacked=True)


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("function", [ovsw.filter_axes, ovsw.layer_axes])
def test_what_layers_cannot_say_is_refused(function, name):
    make, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        function(make())


def test_the_other_flax():
    with pytest.raises(TypeError, match=r"ovsw\.linen\.filter_axes\(module, x\) with an input"):
        ovsw.filter_axes(ovsw.linen.BinaryDense(4))
    with pytest.raises(TypeError, match=r"takes a linen module, .*Call ovsw\.layer_axes\(model\)"):
        ovsw.linen.layer_axes(dense(nnx.Rngs(0)), (2, 4))


@given(
    st.lists(st.integers(1, 3), min_size=1, max_size=4),
    st.lists(st.tuples(st.integers(0, 4), st.integers(1, 3)), max_size=2),
    st.data(),
)
def test_the_axes_of_a_layer_are_found_wherever_it_is_stacked(own, stacked, data):
    """Or refused; never others, but where sizes of 1 make no difference."""
    labels, sizes = list(range(len(own))), list(own)  # -1 labels an axis of the stack
    for place, size in stacked:
        labels.insert(place, -1)
        sizes.insert(place, size)
    filters = data.draw(st.sets(st.sampled_from(range(len(own))), min_size=1))
    kernel = Kernel(tuple(own), tuple(sorted(filters)))
    places = tuple(i for i, label in enumerate(labels) if label == -1)

    def matters(axes):
        return [i for i in axes if sizes[i] > 1]

    def expected(chosen):
        return matters(i for i, label in enumerate(labels) if label in chosen)

    told = in_stack(kernel, tuple(sizes), places, "a", None)
    assert matters(told.filter) == expected(filters)
    assert matters(told.layer) == expected(range(len(own)))
    others = itertools.combinations(range(len(sizes)), len(own))
    fitting = {tuple(matters(c)) for c in others if [sizes[i] for i in c] == own}
    if len(fitting) == 1:
        assert in_stack(kernel, tuple(sizes), None, "a", None) == told
    else:
        with pytest.raises(ValueError, match="the shape doesn't tell"):
            in_stack(kernel, tuple(sizes), None, "a", None)


# ---- linen


class Block(linen.Module):
    features: int = 4

    @linen.compact
    def __call__(self, x, _=None):
        x = ovsw.linen.BinaryDense(self.features, train=True)(x)
        return ovsw.linen.BinaryConv(self.features, 3, train=True)(x), None


class OwnLinen(linen.Module):
    filter_axes = (1, 2)

    @linen.compact
    def __call__(self, x):
        kernel = self.param("latent_kernel", linen.initializers.normal(), (5, 2, x.shape[-1]))
        return jnp.einsum("...i,ohi->...oh", x, kernel).sum(-1)


EACH = {"variable_axes": {"params": 0}, "split_rngs": {"params": True}}


class Network(linen.Module):
    @linen.compact
    def __call__(self, x, *, train):
        x, _ = linen.scan(Block, length=7, **EACH)(name="scanned")(x, None)
        each = EACH | {"variable_axes": {"params": 1}, "in_axes": 0, "out_axes": 0}
        x = linen.vmap(ovsw.linen.BinaryDense, **each)(5, train=train, name="members")(x)
        x = linen.vmap(OwnLinen, **each)(name="own")(x)
        x = linen.remat(linen.Dense)(6, name="dense")(x)
        x = linen.ConvTranspose(3, (2,), transpose_kernel=True, name="up")(x)
        x = linen.Einsum((4, 3), "ntf, gf -> ntg", name="einsum")(x)
        return linen.DenseGeneral((2, 3), axis=(-2, -1), name="heads")(x)


def test_linen_layers_are_asked_in_a_call():
    x = jax.ShapeDtypeStruct((3, 6, 4), jnp.float32)
    assert ovsw.linen.filter_axes(Network(), x, train=True) == {
        "scanned": {
            "BinaryDense_0": {"latent_kernel": (1,)},
            "BinaryConv_0": {"latent_kernel": (1, 2)},
        },
        "members": {"latent_kernel": (0,)},
        "own": {"latent_kernel": (2, 3)},
    }
    layers = ovsw.linen.layer_axes(Network(), (3, 6, 4), mask=kernels, train=True)
    assert layers["members"] == {"latent_kernel": (0, 2)}
    assert layers["dense"] == {"kernel": (0, 1)}
    filters = ovsw.linen.filter_axes(Network(), x, mask=kernels, train=True)
    found = [filters[name]["kernel"] for name in ("dense", "up", "einsum", "heads")]
    assert found == [(0,), (0, 2), (1,), (0, 1)]


class Unknown(linen.Module):
    @linen.compact
    def __call__(self, x):
        return x @ self.param("latent_kernel", linen.initializers.normal(), (2, 4, 3))


def test_linen_layers_that_do_not_say():
    with pytest.raises(ValueError, match=r"at 'latent_kernel' \(Unknown\) have shape \(2, 4, 3\)"):
        ovsw.linen.filter_axes(Unknown(), (1, 4))
    with pytest.raises(ValueError, match=r"Dense has no latent weights among its 2 parameters"):
        ovsw.linen.filter_axes(linen.Dense(3), (1, 4))
    square = linen.vmap(ovsw.linen.BinaryDense, **EACH)(4, train=True)
    with pytest.raises(ValueError, match=r"stacked along axis 0 or axis 1 or axis 2.*stacked=0"):
        ovsw.linen.filter_axes(square, (4, 2, 4))
    assert ovsw.linen.filter_axes(square, (4, 2, 4), stacked=0) == {"latent_kernel": (1,)}
