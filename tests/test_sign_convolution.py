"""Convolutions of signs by counted bits, against XLA's convolution and its gradients."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from jax.extend.core import jaxprs_in_params
from jax.sharding import AxisType, PartitionSpec

import ovsw_jax as ovsw
from ovsw_jax.nn._kernels import popcount
from ovsw_jax.nn._kernels.convolution import Window, multiply
from ovsw_jax.nn._kernels.sign_convolution import convolve_signs
from ovsw_jax.nn._kernels.words import pack, unpack
from ovsw_jax.nn.sign_kinds import is_two_valued

SAME = Window((3, 3), (1, 1), "SAME", (1, 1), 1)


def signs(rng, shape, dtype=np.float32):
    return jnp.asarray(rng.choice([-1, 1], shape), dtype)


@given(st.integers(1, 100), st.integers(0, 2**32 - 1))
def test_packing_loses_nothing(channels, seed):
    x = signs(np.random.default_rng(seed), (3, 2, channels))
    words = pack(x)
    assert words.dtype == jnp.uint32
    assert words.shape == (3, 2, -(-channels // 32))
    bits = np.unpackbits(np.asarray(words).view(np.uint8), bitorder="little").reshape(3, 2, -1)
    np.testing.assert_array_equal(bits[..., :channels], x > 0)
    assert not bits[..., channels:].any()
    np.testing.assert_array_equal(unpack(words, channels), x)


@st.composite
def windows(draw):
    """A window of one to three spatial axes, and a spatial shape that it fits in."""
    axes = draw(st.integers(1, 3))

    def each(low, high):
        return tuple(draw(st.integers(low, high)) for _ in range(axes))

    size, strides, dilation, spatial = each(1, 3), each(1, 3), each(1, 2), each(1, 7)
    padding = draw(
        st.sampled_from(["SAME", "VALID"])
        | st.just(tuple(zip(each(0, 3), each(0, 3), strict=True)))
    )
    window = Window(size, strides, padding, dilation, 1)
    low_high = padding if not isinstance(padding, str) else ((0, 0),) * axes
    extents = [
        n + sum(p) - (k - 1) * d
        for n, p, k, d in zip(spatial, low_high, size, dilation, strict=True)
    ]
    assume(padding == "SAME" or min(extents) >= 1)
    return window, spatial


@settings(max_examples=10, deadline=None)
@given(
    windows(), st.sampled_from([1, 2, 5, 31, 32, 33, 64, 70, 256, 290]), st.integers(0, 2**32 - 1)
)
def test_sums_are_those_of_a_convolution(window_and_shape, channels, seed):
    window, spatial = window_and_shape
    rng = np.random.default_rng(seed)
    x = signs(rng, (2, *spatial, channels))
    kernel = signs(rng, (*window.kernel_size, channels, 3))
    expected = multiply(x, kernel, window, jnp.float32)
    actual = convolve_signs(x, kernel, window)
    chex.assert_trees_all_equal_shapes_and_dtypes(actual, expected)
    np.testing.assert_array_equal(actual, expected)


@settings(max_examples=6, deadline=None)
@given(windows(), st.sampled_from([1, 3, 32, 40]), st.integers(0, 2**32 - 1))
def test_gradients_are_those_of_a_convolution(window_and_shape, channels, seed):
    window, spatial = window_and_shape
    rng = np.random.default_rng(seed)
    with jax.enable_x64(True):
        x = signs(rng, (3, *spatial, channels), np.float64)
        kernel = signs(rng, (*window.kernel_size, channels, 2), np.float64)
        y, transpose = jax.vjp(lambda a, w: convolve_signs(a, w, window), x, kernel)
        _, expected = jax.vjp(lambda a, w: multiply(a, w, window, jnp.float64), x, kernel)
        cotangent = jnp.asarray(rng.normal(size=y.shape))
        chex.assert_trees_all_close(
            transpose(cotangent), expected(cotangent), rtol=1e-12, atol=1e-12
        )


def test_a_batch_in_several_parts(monkeypatch):
    """The rows of signs are bounded; what is left over of a batch is a part of its own."""
    rng = np.random.default_rng(0)
    x, kernel = signs(rng, (7, 5, 5, 40)), signs(rng, (3, 3, 40, 6))
    cotangent = jnp.asarray(rng.normal(size=(7, 5, 5, 6)), jnp.float32)

    def gradients(convolve):
        return jax.vjp(lambda a, w: convolve(a, w), x, kernel)[1](cotangent)

    expected = gradients(lambda a, w: multiply(a, w, SAME, jnp.float32))
    monkeypatch.setattr(popcount, "ROW_BYTES", 3 * 5 * 5 * 9 * 40 * 4)  # of three images
    parts, original = [], popcount._add_gradient

    def counted(gradient, x, *rest, **options):
        parts.append(len(x))
        return original(gradient, x, *rest, **options)

    monkeypatch.setattr(popcount, "_add_gradient", counted)
    chex.assert_trees_all_close(
        gradients(lambda a, w: convolve_signs(a, w, SAME)), expected, rtol=1e-4, atol=1e-4
    )
    assert parts == [3, 3, 1]


def test_what_is_too_large_to_write_out_is_left_to_xla():
    rng = np.random.default_rng(0)
    window = Window((13, 13), (1, 1), "SAME", (1, 1), 1)
    x, kernel = signs(rng, (1, 14, 14, 4)), signs(rng, (13, 13, 4, 2))
    assert not counts_bits(lambda x: convolve_signs(x, kernel, window), x)
    np.testing.assert_array_equal(
        convolve_signs(x, kernel, window), multiply(x, kernel, window, jnp.float32)
    )


@pytest.mark.parametrize(
    ("image", "padding", "shape"),
    [((0, 5, 5, 4), "SAME", (0, 5, 5, 6)), ((2, 1, 1, 4), "VALID", (2, 0, 0, 6))],
)
def test_nothing_comes_of_nothing(image, padding, shape):
    layer = make(padding=padding)
    y, transpose = jax.vjp(lambda x: layer(x), jnp.ones(image))
    assert y.shape == shape
    assert not transpose(y)[0].any()


def test_parts_are_few(monkeypatch):
    """Each part is compiled for itself."""
    monkeypatch.setattr(popcount, "ROW_BYTES", 1)
    window = Window((1,), (1,), "VALID", (1,), 1)
    x, kernel = jnp.ones((100, 3, 4)), jnp.ones((1, 4, 2))

    def gradient(kernel):
        return jax.grad(lambda w: jnp.sum(convolve_signs(x, w, window)))(kernel)

    jaxpr = jax.make_jaxpr(gradient)(kernel)
    assert list(operations(jaxpr.jaxpr)).count("dot_general") <= popcount.MAX_PARTS
    np.testing.assert_array_equal(gradient(kernel), jnp.full((1, 4, 2), 300.0))


def test_a_layer_called_without_jit_is_compiled_once():
    layer, x = make(), jnp.ones((2, 5, 5, 4))
    gradient = jax.grad(lambda x: jnp.sum(layer(x)))
    gradient(x)
    with pytest.MonkeyPatch.context() as patch:
        compiled = []
        patch.setattr(
            jax._src.compiler, "compile_or_get_cached", lambda *a, **k: compiled.append(a)
        )
        gradient(x)
    assert not compiled


def operations(jaxpr):
    for equation in jaxpr.eqns:
        yield equation.primitive.name
        for inner in jaxprs_in_params(equation.params):
            yield from operations(inner)


def counts_bits(layer, x):
    return "population_count" in set(operations(jax.make_jaxpr(layer)(x).jaxpr))


def make(**options):
    return ovsw.nn.BinaryConv(4, 6, (3, 3), **options, rngs=nnx.Rngs(0))


TWO_VALUED = {
    "default": {},
    "partial": {"input_sign": functools.partial(ovsw.nn.tanh_sign, sharpness=3.0)},
    "standardised kernel": {
        "kernel_sign": functools.partial(ovsw.nn.standardized_sign, sign=ovsw.nn.clipped_ste_sign)
    },
    "learned threshold": {"input_sign": ovsw.nn.LearnedThresholdSign(4), "normalize_input": False},
    "circular": {"padding": "CIRCULAR"},
    "bfloat16": {"dtype": jnp.bfloat16},
}
OTHERS = {
    "a user's own sign": {"input_sign": lambda x: jnp.sign(x)},
    "real activations": {"input_sign": None},
    "real weights": {"kernel_sign": None, "scale": None},
    "a factor in the sign": {"kernel_sign": ovsw.nn.magnitude_aware_sign, "scale": None},
    "groups": {"feature_group_count": 2},
}


@pytest.mark.parametrize("name", [*TWO_VALUED, *OTHERS])
def test_layers_of_two_signs_count_bits_and_others_multiply(name):
    layer = make(**{**TWO_VALUED, **OTHERS}[name])
    assert counts_bits(layer, jnp.ones((2, 5, 5, 4))) == (name in TWO_VALUED)


def test_a_sign_of_the_users_keeps_its_zeros():
    layer = make(input_sign=jnp.sign, normalize_input=False, scale=None)
    assert not layer(jnp.zeros((1, 5, 5, 4))).any()


def test_signs_that_are_known():
    nn = ovsw.nn
    plain = (nn.sign, nn.ste_sign, nn.approx_sign, nn.swish_sign, nn.standardized_sign)
    assert all(map(is_two_valued, (*plain, ovsw.linen.LearnedThresholdSign())))
    own = functools.partial(nn.standardized_sign, sign=jnp.sign)
    threshold = nn.LearnedThresholdSign(2, sign=jnp.sign)

    class Half(nnx.Module):
        sign = staticmethod(ovsw.nn.ste_sign)

        def __call__(self, x):
            return 0.5 * self.sign(x)

    class Shifted(ovsw.nn.LearnedThresholdSign):
        def __call__(self, x):
            return super().__call__(x) + 1

    modules = (Half(), Shifted(2), threshold, linen.Dense(3))
    others = (*modules, None, jnp.sign, own, nn.magnitude_aware_sign)
    assert not any(map(is_two_valued, others))


@pytest.mark.parametrize("name", [*TWO_VALUED, *OTHERS])
def test_layers_agree_with_xla(name, monkeypatch):
    """Outputs to the last bit; gradients to rounding, whatever the signs."""
    options = {**TWO_VALUED, **OTHERS}[name]
    rng = np.random.default_rng(1)
    x = jnp.asarray(rng.normal(size=(3, 6, 6, 4)), jnp.float32)
    layer = make(**options)

    def run():
        graph, state = nnx.split(layer)
        return jax.vjp(lambda state, x: nnx.merge(graph, state)(x), state, x)

    y, transpose = run()
    monkeypatch.setattr("ovsw_jax.nn._kernels.arithmetic.is_two_valued", lambda sign: False)
    expected_y, expected_transpose = run()
    np.testing.assert_array_equal(y, expected_y)
    dy, tolerance = jnp.asarray(rng.normal(size=y.shape), y.dtype), 1e-5
    if y.dtype == jnp.bfloat16:
        tolerance = 2e-2
    chex.assert_trees_all_close(
        transpose(dy), expected_transpose(dy), rtol=tolerance, atol=tolerance
    )


def test_members_and_their_weights_under_vmap():
    rng = np.random.default_rng(0)
    window = Window((3, 3), (2, 2), "SAME", (1, 1), 1)
    x, kernel = signs(rng, (2, 3, 6, 6, 40)), signs(rng, (2, 3, 3, 40, 4))

    def gradients(x, kernel):
        return jax.value_and_grad(lambda a, w: jnp.sum(convolve_signs(a, w, window) ** 2), (0, 1))(
            x, kernel
        )

    together = jax.jit(jax.vmap(gradients))(x, kernel)
    apart = [gradients(a, w) for a, w in zip(x, kernel, strict=True)]
    chex.assert_trees_all_close(together, jax.tree.map(lambda *leaves: jnp.stack(leaves), *apart))


@pytest.mark.parametrize("varies", ["x", "kernel", "both"])
def test_under_shard_map(varies):
    """Gradients of what does not vary over an axis are summed over it."""
    rng = np.random.default_rng(0)
    x, kernel = signs(rng, (2, 5, 5, 4)), signs(rng, (3, 3, 4, 4))
    specs = tuple(
        PartitionSpec("data") if varies in (name, "both") else PartitionSpec()
        for name in ("x", "kernel")
    )
    mesh = jax.make_mesh((1,), ("data",), axis_types=(AxisType.Auto,))

    def loss(x, kernel, convolve):
        return jnp.sum(convolve(x, kernel) ** 2)

    def gradients(convolve):
        def local(x, kernel):
            return jax.grad(loss, (0, 1))(x, kernel, convolve)

        mapped = jax.shard_map(local, mesh=mesh, in_specs=specs, out_specs=specs)
        return jax.jit(mapped)(x, kernel)

    chex.assert_trees_all_close(
        gradients(lambda a, w: convolve_signs(a, w, SAME)),
        gradients(lambda a, w: multiply(a, w, SAME, jnp.float32)),
    )
