"""What `ovsw.binarize` warns of and reports, its ready-made `where=`, and attention."""

import functools
import json
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import ovsw_jax as ovsw


def linear(n=8, m=8):
    return nnx.Linear(n, m, rngs=nnx.Rngs(0))


def sequence(*functions):
    return nnx.Sequential(linear(), *functions, linear(), nnx.tanh, linear())


def warned(model, **options):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        ovsw.binarize(model, **options)
    return [str(one.message) for one in caught]


# --- inputs of one sign


POOL = functools.partial(nnx.max_pool, window_shape=(2,))


@pytest.mark.parametrize(
    ("functions", "name"),
    [
        ((nnx.relu,), "relu"),
        ((nnx.sigmoid,), "sigmoid"),
        ((nnx.softplus,), "softplus"),
        ((nnx.relu, POOL), "relu"),
        ((nnx.relu, nnx.Dropout(0.5, rngs=nnx.Rngs(0))), "relu"),
        ((nnx.Sequential(nnx.tanh, nnx.relu),), "relu"),
        ((nnx.relu, nnx.tanh), None),  # not known, though true: with input_shape it is
        ((nnx.tanh,), None),
        ((ovsw.nn.hardtanh,), None),
        ((nnx.relu, nnx.BatchNorm(8, rngs=nnx.Rngs(0))), None),
        ((POOL,), None),
    ],
)
def test_the_function_before_a_layer_of_a_sequence_is_known(functions, name):
    found = warned(sequence(*functions))
    assert len(found) == (name is not None)
    if name is not None:
        place = f"layers/{len(functions) + 1}"
        assert found[0].startswith(f"{place} (BinaryDense) comes after {name}, whose results are")
        assert "ovsw.nn.hardtanh" in found[0]


def test_a_layer_at_the_head_of_a_nested_sequence():
    inner = nnx.Sequential(linear(), nnx.tanh)
    (found,) = warned(nnx.Sequential(linear(), nnx.relu, inner, linear()))
    assert found.startswith("layers/2/layers/0 (BinaryDense) comes after relu")


class Own(nnx.Module):
    """Whose order of calls no attribute tells."""

    def __init__(self):
        self.stem, self.body, self.head = linear(), linear(), linear()

    def __call__(self, x):
        return self.head(self.body(nnx.relu(nnx.tanh(self.stem(x)))))


def test_with_an_input_shape_the_rest_is_found_by_running_it():
    model = Own()
    before = jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(model, nnx.Param)))
    assert warned(model) == []
    (found,) = warned(model, input_shape=(4, 8))
    assert found.startswith("body (BinaryDense) gets inputs that are never negative")
    after = jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(model, nnx.Param)))
    jax.tree.map(np.testing.assert_array_equal, before, after)
    assert len(warned(sequence(nnx.relu, nnx.tanh), input_shape=(4, 8))) == 1
    assert len(warned(sequence(nnx.relu), input_shape=(4, 8))) == 1  # said once


@pytest.mark.parametrize(
    "options",
    [
        {"input_sign": ovsw.nn.LearnedThresholdSign, "normalize_input": False},
        {"input_sign": None},
    ],
)
def test_a_learned_threshold_and_real_inputs_are_no_fault(options):
    assert warned(sequence(nnx.relu), input_shape=(4, 8), **options) == []


@pytest.mark.parametrize(
    ("model", "shape", "message"),
    [
        (Own(), (4, 5), "can't be called with one float32 array of shape"),
        (Own(), "4", "must be a sequence of positive integers"),
        (nnx.eval_shape(Own), (4, 8), "whose arrays are abstract"),
    ],
)
def test_input_shapes_that_can_not_be_run(model, shape, message):
    with pytest.raises(ValueError, match=message):
        ovsw.binarize(model, input_shape=shape)


# --- ready-made functions for where=


class Mobile(nnx.Module):
    def __init__(self):
        conv = functools.partial(nnx.Conv, rngs=nnx.Rngs(0))
        self.stem = conv(3, 16, (3, 3))
        self.depthwise = conv(16, 16, (3, 3), feature_group_count=16)
        self.grouped = conv(16, 16, (3, 3), feature_group_count=2)
        self.SqueezeExcite_0 = nnx.Dict(reduce=linear(16, 64), expand=linear(64, 16))
        self.pointwise = conv(16, 64, (1, 1))
        self.wide = conv(64, 64, (1, 1))
        self.up = nnx.ConvTranspose(64, 16, (2, 2), rngs=nnx.Rngs(0))
        self.second = self.wide
        self.head = linear(64, 10)

    def __call__(self, x):
        x = self.grouped(self.depthwise(self.stem(x)))
        scale = self.SqueezeExcite_0["reduce"](x.mean((1, 2), keepdims=True))
        x = self.pointwise(x * self.SqueezeExcite_0["expand"](scale))
        x = self.second(self.wide(x))
        return self.head(x).mean((1, 2)) + self.up(x).mean()


INNER = {
    "depthwise",
    "grouped",
    "SqueezeExcite_0/reduce",
    "SqueezeExcite_0/expand",
    "pointwise",
    "wide",
}
DEPTHWISE = {"depthwise"}
SQUEEZE = {"SqueezeExcite_0/reduce", "SqueezeExcite_0/expand"}
NARROW = {"depthwise", "SqueezeExcite_0/reduce", "pointwise"}  # of 9, 16 and 16 products


def is_not_wide(path, layer):
    return path != ("wide",)


def test_ready_made_functions_are_combined_by_and_alone():
    with pytest.raises(TypeError, match=r"ovsw.skip_narrow & 3: the other one must be a function"):
        ovsw.skip_narrow & 3
    for choose in (lambda f, g: f | g, lambda f, g: (lambda p, x: True) | f):
        with pytest.raises(TypeError, match="keeps some layers real, which & combines"):
            choose(ovsw.skip_narrow, ovsw.skip_depthwise)


@pytest.mark.parametrize(
    ("where", "kept"),
    [
        (None, set()),
        (ovsw.skip_depthwise, DEPTHWISE),
        (ovsw.skip_squeeze_excite, SQUEEZE),
        (ovsw.skip_narrow, NARROW),
        (ovsw.skip_depthwise & ovsw.skip_squeeze_excite, DEPTHWISE | SQUEEZE),
        (ovsw.skip_depthwise & is_not_wide, DEPTHWISE | {"wide"}),
        (is_not_wide & ovsw.skip_narrow, NARROW | {"wide"}),
    ],
)
def test_ready_made_functions_refine_the_default(where, kept):
    model = Mobile()
    binary = ovsw.binarize(model, where=where)
    made = {
        "/".join(map(str, path))
        for path, module in nnx.iter_modules(binary)
        if hasattr(module, "latent_kernel")
    }
    report = ovsw.binarize_report(model, where=where)
    assert {row.name for row in report.rows if row.becomes} == INNER - kept
    assert {"wide" if name == "second" else name for name in made} == INNER - kept
    assert binary.second is binary.wide


def test_names_of_squeeze_and_excitation_are_whole_words():
    for name in (
        "se",
        "se1",
        "conv_se",
        "squeeze",
        "SqueezeExcite",
        "excitation",
        "squeeze_excite",
    ):
        assert not ovsw.skip_squeeze_excite((name, "fc"), linear()), name
    for name in ("dense", "head", "series", "base", "response", 0):
        assert ovsw.skip_squeeze_excite((name, "fc"), linear()), name


def test_what_is_no_function_can_not_be_combined():
    with pytest.raises(TypeError):
        ovsw.skip_narrow & 3
    assert repr(ovsw.skip_narrow & ovsw.skip_depthwise) == "ovsw.skip_narrow & ovsw.skip_depthwise"


# --- the report


def test_the_report_names_each_layer_and_why_it_stays():
    where = ovsw.skip_depthwise & ovsw.skip_squeeze_excite
    report = ovsw.binarize_report(nnx.eval_shape(Mobile), (1, 8, 8, 3), where=where)
    assert {row.name: row.becomes or row.why for row in report.rows} == {
        "stem": "the first layer",
        "depthwise": "ovsw.skip_depthwise is False",
        "grouped": "BinaryConv",
        "SqueezeExcite_0/reduce": "ovsw.skip_squeeze_excite is False",
        "SqueezeExcite_0/expand": "ovsw.skip_squeeze_excite is False",
        "pointwise": "BinaryConv",
        "wide": "BinaryConv",
        "up": "no binary layer replaces a ConvTranspose",
        "head": "the last layer",
    }
    macs = {row.name: row.macs for row in report.rows}
    binary = 64 * (9 * 8 * 16) + 64 * 16 * 64 + 2 * 64 * 64 * 64  # wide is called twice
    assert macs["grouped"] + macs["pointwise"] + macs["wide"] == binary
    assert report.binary_share == binary / sum(macs.values())
    assert report.other_macs == 0


def test_the_share_is_that_of_the_summary_of_the_binary_network():
    model = Mobile()
    report = ovsw.binarize_report(model, input_shape=(1, 8, 8, 3))
    total = ovsw.summary(ovsw.binarize(model), (1, 8, 8, 3)).total
    assert report.binary_share == total.binary_macs / (total.binary_macs + total.float_macs)


def test_the_report_shows_itself():
    report = ovsw.binarize_report(Mobile(), (1, 8, 8, 3))
    for text in (str(report), report.to_markdown(), report._repr_html_()):
        assert "no binary layer replaces a ConvTranspose" in text
        assert "6 of 9 layers become binary, with" in text
    assert json.loads(json.dumps(report.to_dict()))["binary_share"] == report.binary_share
    assert "MAC" not in str(ovsw.binarize_report(Mobile()))


def test_what_binarize_refuses_is_a_reason_in_the_report():
    model = nnx.Sequential(
        linear(), nnx.Conv(8, 8, 3, mask=jnp.ones((3, 8, 8)), rngs=nnx.Rngs(0)), linear()
    )
    with pytest.raises(ValueError, match="has a mask"):
        ovsw.binarize(model)
    row = ovsw.binarize_report(model).rows[1]
    assert row.becomes is None
    assert row.why.startswith("can't: it has a mask")


def test_other_modules_with_kernels_are_named_too():
    model = nnx.Dict(
        table=nnx.Embed(5, 8, rngs=nnx.Rngs(0)),
        first=linear(),
        there=ovsw.nn.BinaryDense(8, 8, rngs=nnx.Rngs(0)),
        heads=nnx.LinearGeneral(8, (2, 4), rngs=nnx.Rngs(0)),
        inner=linear(),
        last=linear(),
    )
    assert {row.name: row.becomes or row.why for row in ovsw.binarize_report(model).rows} == {
        "table": "looks entries up and multiplies nothing",
        "first": "the first layer",
        "there": "is binary already",
        "heads": "becomes binary only by a where= that is a plain function",
        "inner": "BinaryDense",
        "last": "the last layer",
    }


# --- attention


def is_projection(path, layer):
    return isinstance(layer, nnx.LinearGeneral)


class Transformer(nnx.Module):
    def __init__(self, **options):
        self.embed = linear(4, 8)
        self.attention = nnx.MultiHeadAttention(2, 8, decode=False, rngs=nnx.Rngs(0), **options)
        self.head = linear(8, 3)

    def __call__(self, x):
        return self.head(self.attention(self.embed(x)).mean(-2))


def test_projections_of_attention_become_binary_where_asked():
    model, x = Transformer(), np.random.default_rng(0).normal(size=(2, 5, 4)).astype(np.float32)
    binary = ovsw.binarize(model, where=is_projection, scale=None, input_shape=x.shape)
    projections = {n: getattr(binary.attention, n) for n in ("query", "key", "value", "out")}
    assert {type(layer) for layer in projections.values()} == {ovsw.nn.BinaryLinearGeneral}
    for name, layer in projections.items():
        real = getattr(model.attention, name)
        np.testing.assert_array_equal(layer.latent_kernel[...], real.kernel[...])
        assert layer.latent_kernel[...].shape == real.kernel.shape
        # The same product, of signs, by Flax's own layer.
        real.kernel[...] = np.where(real.kernel[...] >= 0, 1, -1).astype(np.float32)
        given = x_of(real, x)
        expected = real(jnp.where(given >= 0, 1.0, -1.0))
        np.testing.assert_allclose(layer(given), expected, rtol=1e-6)
    assert binary(x).shape == (2, 3)
    assert ovsw.filter_axes(binary) == {
        "attention": {
            **{name: {"latent_kernel": (0,)} for name in ("query", "key", "value")},
            "out": {"latent_kernel": (0, 1)},
        }
    }
    assert set(ovsw.inspect(binary, x).faults) == set()
    optimizer = nnx.Optimizer(
        binary, ovsw.ovsw_sgd(0.1, axes=ovsw.filter_axes(binary)), wrt=nnx.Param
    )
    gradients = nnx.grad(lambda m: (m(x) ** 2).sum())(binary)
    optimizer.update(binary, gradients)
    assert np.any(gradients["attention"]["out"]["latent_kernel"][...])


def x_of(layer, x):
    rng = np.random.default_rng(1)
    return jnp.asarray(rng.normal(size=(2, 5, *layer.in_features)), jnp.float32)


def test_by_default_attention_stays_real():
    model = Transformer()
    for options in ({"where": lambda path, layer: not is_projection(path, layer)}, {}):
        if options:
            binary = ovsw.binarize(model, **options)
            assert type(binary.attention.query) is nnx.LinearGeneral
        else:
            with pytest.raises(ValueError, match="the first and the last stay real"):
                ovsw.binarize(model)


def test_a_learned_threshold_of_a_projection_has_one_for_each_input_feature():
    binary = ovsw.binarize(
        Transformer(),
        where=is_projection,
        input_sign=ovsw.nn.LearnedThresholdSign,
        normalize_input=False,
    )
    assert binary.attention.out.input_sign.threshold.shape == (8,)


def test_a_projection_with_a_batch_axis_is_refused():
    layer = nnx.LinearGeneral(8, 4, batch_axis={0: 3}, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="gives each entry of that axis a kernel of its own"):
        ovsw.binarize(nnx.Sequential(layer), where=is_projection)


def test_an_abstract_network_with_attention():
    binary = ovsw.binarize(nnx.eval_shape(Transformer), where=is_projection)
    assert binary.attention.query.latent_kernel.shape == (8, 2, 4)
