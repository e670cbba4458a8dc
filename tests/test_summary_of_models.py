"""Counts of parameters, memory and multiply-accumulates against numbers made by hand."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import FrozenInstanceError
from functools import partial

import flax.linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

import ovsw_jax as ovsw


def abstract(make):
    return nnx.eval_shape(lambda: make(nnx.Rngs(0)))


def row(counted, name):
    (found,) = [r for r in counted.rows if r.name == name]
    return found


class Small(nnx.Module):
    """Every kind of layer once; sizes whose products are easily told apart."""

    def __init__(self, rngs):
        self.stem = nnx.Conv(3, 8, (3, 3), strides=2, use_bias=False, rngs=rngs)
        self.norm = nnx.BatchNorm(8, rngs=rngs)
        self.conv = ovsw.nn.BinaryConv(
            8, 12, (3, 3), padding="VALID", feature_group_count=2, dtype=jnp.bfloat16, rngs=rngs
        )
        self.act = ovsw.nn.PReLU(12)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.dense = ovsw.nn.BinaryDense(12, 5, use_bias=True, scale="learned", rngs=rngs)
        self.head = nnx.Linear(5, 7, param_dtype=jnp.bfloat16, dtype=jnp.float32, rngs=rngs)

    def __call__(self, x):
        x = self.act(self.conv(self.norm(self.stem(x))))
        return self.head(self.dropout(self.dense(x.mean(axis=(1, 2)))))


def test_every_number_of_a_small_network():
    counted = ovsw.summary(abstract(Small), (2, 16, 16, 3))
    expected = {
        # output; 1-bit, real params; bytes stored, training; binary, float MAC; dtype
        "stem": ((2, 8, 8, 8), 0, 216, 864, 864, 0, 2 * 64 * 8 * 27, "float32"),
        "norm": ((2, 8, 8, 8), 0, 16, 128, 128, 0, 0, None),
        "conv": ((2, 6, 6, 12), 432, 0, 54 + 48, 1728, 2 * 36 * 12 * 36, 0, "bfloat16"),
        "act": ((2, 6, 6, 12), 0, 12, 48, 48, 0, 0, None),
        "dense": ((2, 5), 60, 10, 8 + 40, 240 + 40, 2 * 60, 0, "float32"),
        "head": ((2, 7), 0, 42, 84, 84, 0, 2 * 35, "float32"),
    }
    assert [r.name for r in counted.rows] == list(expected)
    for r in counted.rows:
        numbers = (r.binary_params, r.real_params, r.stored_bytes, r.training_bytes)
        found = (*r.output_shapes, *numbers, r.binary_macs, r.float_macs, r.dtype)
        assert found == expected[r.name], r.name
    total, columns = counted.total, list(zip(*expected.values(), strict=True))
    assert total.output_shapes == ((2, 7),)
    assert (total.binary_params, total.real_params) == (sum(columns[1]), sum(columns[2]))
    assert (total.stored_bytes, total.training_bytes) == (sum(columns[3]), sum(columns[4]))
    assert (total.binary_macs, total.float_macs) == (sum(columns[5]), sum(columns[6]))
    assert total.operations == sum(columns[6]) + sum(columns[5]) / 64
    assert total.kind == "Small"


def test_a_factor_inside_a_sign_is_stored_too():
    """4 bytes a filter, wherever the magnitudes come in; a sign alone needs none."""

    def make(sign, scale):
        return ovsw.nn.BinaryDense(16, 4, kernel_sign=sign, scale=scale, rngs=nnx.Rngs(0))

    aware, ste = ovsw.nn.magnitude_aware_sign, ovsw.nn.ste_sign
    for sign, scale, factors in (
        (aware, None, 16),
        (partial(aware), None, 16),
        (ste, ovsw.nn.mean_magnitude, 16),
        (ste, None, 0),
    ):
        assert ovsw.summary(make(sign, scale), (1, 16)).total.stored_bytes == 8 + factors


def test_signs_that_are_missing_make_products_real():
    class Partly(nnx.Module):
        def __init__(self, rngs):
            self.weights = ovsw.nn.BinaryDense(4, 4, input_sign=None, rngs=rngs)
            self.inputs = ovsw.nn.BinaryDense(4, 4, kernel_sign=None, scale=None, rngs=rngs)
            sign = ovsw.nn.LearnedThresholdSign(4)
            self.both = ovsw.nn.BinaryDense(
                4, 4, input_sign=sign, normalize_input=False, scale=None, rngs=rngs
            )

        def __call__(self, x):
            return self.both(self.inputs(self.weights(x)))

    counted = ovsw.summary(Partly(nnx.Rngs(0)), (3, 4))
    assert [
        (r.name, r.binary_params, r.real_params, r.stored_bytes, r.binary_macs, r.float_macs)
        for r in counted.rows
    ] == [
        ("weights", 16, 0, 2 + 16, 0, 48),
        ("inputs", 0, 16, 64, 0, 48),
        ("both", 16, 0, 2, 48, 0),
        ("both/input_sign", 0, 4, 16, 0, 0),
    ]


def test_imagenet_resnet18_by_hand():
    """1.67e9 binary and 1.4e8 real operations in the papers, here to the last one."""
    model = abstract(lambda rngs: ovsw.models.ResNet18(rngs=rngs))
    total = ovsw.summary(model, (1, 224, 224, 3)).total
    downsampling = 64 * 128 * 28 * 28 + 128 * 256 * 14 * 14 + 256 * 512 * 7 * 7
    assert total.float_macs == 118_013_952 + downsampling + 512_000
    binary = 4 * 64 * 64 * 9 * 56 * 56
    for width, out in ((128, 28), (256, 14), (512, 7)):
        binary += (width * width // 2 + 3 * width * width) * 9 * out * out
    assert total.binary_macs == binary == 1_676_279_808
    assert total.output_shapes == ((1, 1000),)


@settings(max_examples=15)
@given(
    size=st.tuples(st.integers(5, 9), st.integers(5, 9)),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    strides=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    dilation=st.integers(1, 2),
    padding=st.sampled_from(["SAME", "VALID", "CIRCULAR", 1, [(0, 2), (1, 0)]]),
    groups=st.sampled_from([1, 2, 4]),
    binary=st.booleans(),
)
def test_products_of_any_convolution(size, kernel, strides, dilation, padding, groups, binary):
    """Against the places that a window of the kernel's reach has, counted in NumPy."""
    layer = ovsw.nn.BinaryConv if binary else nnx.Conv
    options = {"strides": strides, "padding": padding, "kernel_dilation": dilation}
    options |= {"feature_group_count": groups}
    model = abstract(lambda rngs: layer(4, 8, kernel, **options, rngs=rngs))
    places = 1
    for axis in range(2):
        reach = (kernel[axis] - 1) * dilation + 1
        pad = {"SAME": None, "VALID": 0, "CIRCULAR": reach - 1, 1: 2}.get(
            padding if not isinstance(padding, list) else "", 2 if axis == 0 else 1
        )
        if pad is None:
            places *= len(range(0, size[axis], strides[axis]))
        else:
            line = np.zeros(size[axis] + pad)
            windows = np.lib.stride_tricks.sliding_window_view(line, reach)
            places *= len(windows[:: strides[axis]])
    expected = 3 * places * 8 * kernel[0] * kernel[1] * 4 // groups
    total = ovsw.summary(model, (3, *size, 4)).total
    assert (total.binary_macs, total.float_macs) == ((expected, 0) if binary else (0, expected))


class Own(nnx.Module):
    """Products of its own, of two kinds, and a layer that is called in three ways."""

    def __init__(self, rngs):
        self.table = nnx.Param(jnp.zeros((4, 6)))
        self.embed = nnx.Linear(4, 4, use_bias=False, rngs=rngs)
        self.again = self.embed
        self.attend = Attention()

    def __call__(self, x):
        x = self.again(self.embed(x))
        x = self.attend.weights(x) @ x
        return jnp.einsum("bi,ij->bj", x, self.table[...]), x


class Attention(nnx.Module):
    def weights(self, x):
        return multiply(x, x)


@jax.jit
def multiply(a, b):
    return a @ b.T


def test_modules_of_ones_own():
    counted = ovsw.summary(Own(nnx.Rngs(0)), (5, 4))
    found = {r.name: (r.real_params, r.float_macs, r.output_shapes) for r in counted.rows}
    assert found == {
        "": (24, 5 * 5 * 4 + 5 * 4 * 6, ((5, 6), (5, 4))),
        "embed": (16, 2 * 5 * 16, ((5, 4),)),
        "attend": (0, 5 * 5 * 4, ()),
    }
    assert counted.total.output_shapes == ((5, 6), (5, 4))
    assert "(model)" in str(counted)


class Step(nnx.Module):
    def __init__(self, rngs):
        self.conv = ovsw.nn.BinaryConv(4, 4, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)

    @nnx.jit
    def __call__(self, x):
        return self.norm(self.conv(x))


class Stacked(nnx.Module):
    def __init__(self, rngs):
        self.steps = nnx.vmap(Step)(rngs.split(3))

    def __call__(self, x):
        step = nnx.remat(lambda x, step: step(x))
        return nnx.scan(step, in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)(x, self.steps)


def test_layers_stacked_in_a_scan():
    for _ in range(2):  # the second time, what jit has traced is not traced again
        counted = ovsw.summary(abstract(Stacked), (2, 5, 5, 4))
        conv = row(counted, "steps/conv")
        assert conv.output_shapes == ((2, 5, 5, 4),)
        assert conv.binary_macs == 3 * 2 * 25 * 4 * 36
        assert (conv.binary_params, conv.stored_bytes) == (3 * 144, 3 * 18 + 3 * 4 * 4)
        assert row(counted, "steps/norm").real_params == 3 * 8


def test_loops_and_conditionals():
    class Loop(nnx.Module):
        def __init__(self):
            self.kernel = nnx.Param(jnp.ones((4, 4)))

        def __call__(self, x):
            kernel = self.kernel[...]
            x = jax.lax.while_loop(lambda x: x.sum() < 9, lambda x: x @ kernel, x)
            x = jax.lax.fori_loop(0, 5, lambda _, x: x @ kernel, x)
            return jax.lax.cond(x.sum() > 0, lambda: x @ kernel @ kernel, lambda: x @ kernel)

    assert ovsw.summary(Loop(), (2, 4)).total.float_macs == (1 + 5 + 2) * 2 * 16


def test_the_model_stays_as_it_is():
    rngs = nnx.Rngs(0)
    model = nnx.Sequential(
        ovsw.nn.BinaryDense(4, 4, rngs=rngs), nnx.BatchNorm(4, rngs=rngs), nnx.Dropout(0.5)
    )
    graph, state = nnx.split(model)
    before = jax.tree.map(np.asarray, state)
    kinds = [type(m) for _, m in nnx.iter_modules(model)]
    ovsw.summary(model, (2, 4))
    assert nnx.split(model)[0] == graph
    assert [type(m) for _, m in nnx.iter_modules(model)] == kinds
    assert not model.layers[1].use_running_average
    jax.tree.map(np.testing.assert_array_equal, nnx.state(model), before)


def test_several_threads_at_once():
    model = abstract(Small)
    with ThreadPoolExecutor(3) as pool:
        counted = pool.map(lambda _: ovsw.summary(model, (2, 16, 16, 3)), range(3))
    assert [found.total.binary_macs for found in counted] == [31_224] * 3


def test_a_summary_in_other_forms():
    counted = ovsw.summary(abstract(Small), [2, 16, 16, np.int64(3)])
    plain = json.loads(json.dumps(counted.to_dict()))
    assert plain["input_shape"] == [2, 16, 16, 3]
    assert plain["rows"][2]["name"] == "conv"
    assert plain["rows"][2]["output_shapes"] == [[2, 6, 6, 12]]
    assert plain["total"]["binary_macs"] == 31_224
    lines = counted.to_markdown().splitlines()
    assert lines[0].startswith("| layer | type | output | 1-bit params | real params |")
    assert len({line.count("|") for line in lines[: len(counted.rows) + 3]}) == 1
    conv = "| conv | BinaryConv | 2x6x6x12 | 432 |  | 102B | 1,728B | 31.10k |  | bfloat16 |"
    assert conv in lines
    with pytest.raises(FrozenInstanceError):
        counted.rows[0].name = "x"


def test_integer_inputs():
    class Text(nnx.Module):
        def __init__(self, rngs):
            self.embed = nnx.Embed(10, 4, rngs=rngs)

        def __call__(self, tokens):
            return self.embed.attend(self.embed(tokens))

    counted = ovsw.summary(abstract(Text), (2, 3), dtype=jnp.int32)
    assert counted.input_dtype == "int32"
    assert row(counted, "embed").float_macs == 2 * 3 * 4 * 10
    assert row(counted, "embed").output_shapes == ((2, 3, 4),)


@pytest.mark.parametrize("shape", [224, "224", (), (1, -1, 3), (0, 4), (1, 2.0), (True, 4), None])
def test_what_is_no_shape(shape):
    with pytest.raises(ValueError, match=r"input_shape=.* positive integers, the batch axis first"):
        ovsw.summary(nnx.Linear(4, 4, rngs=nnx.Rngs(0)), shape)


def test_a_shape_that_the_model_does_not_take():
    model = abstract(lambda r: ovsw.models.CifarResNet20(rngs=r))
    message = r"(?s)CifarResNet20 can't .* one float32 array of shape \(32, 32, 3\): ValueError: "
    with pytest.raises(ValueError, match=message + r"images of shape .*whole batch") as caught:
        ovsw.summary(model, (32, 32, 3))
    assert isinstance(caught.value.__cause__, ValueError)
    with pytest.raises(ValueError, match=r"NoCall can't be called .*TypeError"):
        ovsw.summary(type("NoCall", (nnx.Module,), {})(), (1, 2))


def test_what_is_no_nnx_module():
    with pytest.raises(TypeError, match=r"ovsw.summary .* linen module \(Dense\).*linen.tabulate"):
        ovsw.summary(flax.linen.Dense(3), (1, 4))
    with pytest.raises(TypeError, match=r"got a tree of parameters"):
        ovsw.summary({"kernel": jnp.ones(3)}, (1, 4))
