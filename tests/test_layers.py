"""Binary layers: formulas in NumPy, the invariance of Appendix B, edges, bad input."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

import ovsw_jax as ovsw
from tests.layer_oracle import numpy_conv, numpy_sign


@pytest.mark.long
@settings(max_examples=12)  # each is compiled
@given(
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    strides=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    pads=st.tuples(*[st.tuples(st.integers(0, 2), st.integers(0, 2))] * 2),
    groups=st.sampled_from([1, 2, 4]),
    use_bias=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_convolution_is_the_sum_over_the_window(
    kernel, strides, dilation, pads, groups, use_bias, seed
):
    rng = np.random.default_rng(seed)
    layer = ovsw.nn.BinaryConv(
        4,
        8,
        kernel,
        strides=strides,
        kernel_dilation=dilation,
        padding=pads,
        feature_group_count=groups,
        use_bias=use_bias,
        scale="learned",
        bias_init=nnx.initializers.normal(),
        rngs=nnx.Rngs(seed),
    )
    x = rng.normal(size=(2, 6, 5, 4)).astype(np.float32)
    latent = np.asarray(layer.latent_kernel[...])
    expected = numpy_conv(numpy_sign(x), numpy_sign(latent), strides, pads, dilation, groups)
    if use_bias:
        expected = expected + np.asarray(layer.bias[...])
    expected = expected * np.abs(latent).mean(axis=(0, 1, 2))
    np.testing.assert_allclose(layer(x), expected, rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize(("padding", "mode"), [("CIRCULAR", "wrap"), ("REFLECT", "reflect")])
def test_padding_by_repetition(padding, mode):
    layer = ovsw.nn.BinaryConv(3, 5, (3, 3), padding=padding, scale=None, rngs=nnx.Rngs(0))
    x = np.random.default_rng(0).normal(size=(1, 5, 6, 3)).astype(np.float32)
    signs = np.pad(numpy_sign(x), ((0, 0), (1, 1), (1, 1), (0, 0)), mode=mode)
    kernel = numpy_sign(np.asarray(layer.latent_kernel[...]))
    none = ((0, 0), (0, 0))
    np.testing.assert_array_equal(layer(x), numpy_conv(signs, kernel, (1, 1), none, (1, 1), 1))


def test_same_padding_follows_flax():
    binary = ovsw.nn.BinaryConv(3, 5, (3, 3), strides=2, scale=None, rngs=nnx.Rngs(0))
    plain = nnx.Conv(3, 5, (3, 3), strides=2, use_bias=False, rngs=nnx.Rngs(0))
    x = np.random.default_rng(0).normal(size=(2, 7, 8, 3)).astype(np.float32)
    plain.kernel[...] = ovsw.nn.sign(binary.latent_kernel[...])
    np.testing.assert_array_equal(binary(x), plain(numpy_sign(x).astype(np.float32)))


def test_causal_convolution_sees_no_future():
    layer = ovsw.nn.BinaryConv(2, 3, 3, padding="CAUSAL", kernel_dilation=2, rngs=nnx.Rngs(0))
    layer.eval()
    x = np.random.default_rng(0).normal(size=(1, 9, 2)).astype(np.float32)
    changed = x.copy()
    changed[:, 5:] *= -1
    np.testing.assert_array_equal(layer(x)[:, :5], layer(changed)[:, :5])
    assert not np.array_equal(layer(x)[:, 5:], layer(changed)[:, 5:])
    assert layer(x).shape == (1, 9, 3)


def test_batch_axes_of_any_number():
    layer = ovsw.nn.BinaryConv(3, 4, (3, 3), rngs=nnx.Rngs(0))
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 6, 6, 3)), jnp.float32)
    np.testing.assert_array_equal(layer(x)[1, 2], layer(x[1, 2]))
    assert layer(x).shape == (2, 3, 6, 6, 4)


def test_gradient_of_dense_is_its_formula():
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        layer = ovsw.nn.BinaryDense(
            7, 4, use_bias=True, scale="learned", param_dtype=jnp.float64, rngs=nnx.Rngs(0)
        )
        graph, params = nnx.split(layer, nnx.Param)
        x, cotangent = rng.normal(size=(5, 7)), rng.normal(size=(5, 4))
        _, transpose = jax.vjp(
            lambda p, x: nnx.merge(graph, p)(x), nnx.to_pure_dict(params), jnp.asarray(x)
        )
        gradients, dx = transpose(jnp.asarray(cotangent))
        latent = np.asarray(layer.latent_kernel[...])
    factor = np.abs(latent).mean(axis=0)
    divided = x / np.sqrt(x.var(axis=1, ddof=1, keepdims=True) + 1e-5)
    products = numpy_sign(x) @ numpy_sign(latent)
    window = np.maximum(2 - 2 * np.abs(divided), 0) * (divided / x)
    scaled = cotangent * factor
    np.testing.assert_allclose(gradients["latent_kernel"], numpy_sign(x).T @ scaled, rtol=1e-12)
    np.testing.assert_allclose(gradients["bias"], scaled.sum(axis=0), rtol=1e-12)
    np.testing.assert_allclose(
        gradients["filter_scale"], (cotangent * products).sum(axis=0), rtol=1e-12, atol=1e-12
    )
    np.testing.assert_allclose(dx, scaled @ numpy_sign(latent).T * window, rtol=1e-12)


@pytest.mark.long
def test_sample_of_one_element_is_not_divided():
    layer = ovsw.nn.BinaryDense(1, 2, scale=None, rngs=nnx.Rngs(0))
    gradient = jax.grad(lambda x: layer(x)[0, 0])(jnp.full((1, 1), 0.25))
    assert abs(float(gradient[0, 0])) == 1.5


@pytest.mark.parametrize("scale", ["standardized", "learned", None])
def test_linen_initialises_the_same_parameters(scale):
    x = jnp.ones((1, 6, 6, 4))
    conv = ovsw.linen.BinaryConv(8, (3, 3), scale=scale, use_bias=True)
    params = conv.init(jax.random.key(0), x, train=False)["params"]
    nnx_params = nnx.to_pure_dict(
        nnx.state(
            ovsw.nn.BinaryConv(4, 8, (3, 3), scale=scale, use_bias=True, rngs=nnx.Rngs(0)),
            nnx.Param,
        )
    )
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, nnx_params)
    assert ovsw.latent_mask(params)["latent_kernel"]
    deviation = float(jnp.std(params["latent_kernel"]))
    assert deviation == pytest.approx(np.sqrt(2 / 36), rel=0.2)  # Kaiming, fan-in 36


BAD_CONVOLUTIONS = {
    r"in_features=3 is not divisible by feature_group_count=2": {"feature_group_count": 2},
    r"strides=\(1, 1, 1\) must be a positive integer, or 2": {"strides": (1, 1, 1)},
    r"strides=0 must be a positive integer": {"strides": 0},
    r"kernel_dilation=\(2,\) must be a positive integer, or 2": {"kernel_dilation": (2,)},
    r"padding='same' is unknown.*SAME": {"padding": "same"},
    r"padding='CAUSAL' is unknown for 2 spatial axes": {"padding": "CAUSAL"},
    r"padding=\(1, 1, 1\) does not fit 2 spatial axes": {"padding": (1, 1, 1)},
    r"padding=\(\(1, 2, 3\), 1\) does not fit": {"padding": ((1, 2, 3), 1)},
    r"padding=-1 does not fit": {"padding": -1},
    r"kernel_size=\(3, 0\) must be a positive integer": {"kernel_size": (3, 0)},
    r"strides=1.5 must be a positive integer": {"strides": 1.5},
}


@pytest.mark.parametrize("message", BAD_CONVOLUTIONS)
def test_bad_arguments(message):
    arguments = BAD_CONVOLUTIONS[message]
    with pytest.raises(ValueError, match=message):
        ovsw.nn.BinaryConv(3, 4, **{"kernel_size": (3, 3), **arguments}, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=message):
        ovsw.linen.BinaryConv(4, **{"kernel_size": (3, 3), **arguments}).init(
            jax.random.key(0), jnp.ones((1, 5, 5, 3)), train=True
        )


@pytest.mark.parametrize("shape", [(2, 5, 5, 4), (5, 3), (3,)])
def test_input_that_does_not_fit(shape):
    layer = ovsw.nn.BinaryConv(3, 4, (3, 3), rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"input of shape .* 3 input features.*channels last"):
        layer(jnp.ones(shape))
    if len(shape) < 3:  # of linen, whose layers take any number of features
        with pytest.raises(ValueError, match=r"input of shape .*channels last"):
            ovsw.linen.BinaryConv(4, (3, 3)).init(jax.random.key(0), jnp.ones(shape), train=True)


def test_integer_products_are_refused():
    layer = ovsw.nn.BinaryConv(3, 4, (3, 3), rngs=nnx.Rngs(0))
    layer.dtype = jnp.int8
    with pytest.raises(TypeError, match="dtype=int8 can't hold the result of a binary layer"):
        layer(jnp.ones((1, 5, 5, 3)))


HADAMARD = np.array([[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]], np.float32)
NUMBERS = {
    jnp.bool_: st.booleans(),
    jnp.uint8: st.integers(0, 255),
    **{jnp.dtype(f"int{n}"): st.integers(-(2 ** (n - 1)), 2 ** (n - 1) - 1) for n in (8, 32, 64)},
    **dict.fromkeys((jnp.float16, jnp.bfloat16, jnp.float32, jnp.float64), st.floats(-1, 1)),
}


@functools.cache
def products_with_signs(training):
    """As many products as signs, from which these could be solved for."""
    layer = ovsw.nn.BinaryDense(
        4, 4, scale=None, kernel_init=lambda *_: jnp.asarray(HADAMARD), rngs=nnx.Rngs(0)
    )
    layer.set_attributes(deterministic=not training)
    return jax.jit(layer)


@pytest.mark.long
@given(data=st.data(), dtype=st.sampled_from(list(NUMBERS)))
@settings(max_examples=100)
def test_normalisation_changes_no_sign(data, dtype):
    """Of no dtype and no finite numbers, those whose squares or quotients leave the range too."""
    numbers = data.draw(st.lists(NUMBERS[dtype], min_size=4, max_size=4))
    with jax.enable_x64(True):
        if jnp.issubdtype(dtype, jnp.floating):
            # Of any order of magnitude, to the greatest and the least.
            limits = jnp.finfo(dtype)
            exponents = st.integers(limits.minexp - limits.nmant, limits.maxexp - 1)
            orders = data.draw(st.lists(exponents, min_size=4, max_size=4))
            numbers = np.ldexp(np.float64(numbers), orders).clip(
                float(limits.min), float(limits.max)
            )
        x = jnp.asarray(numbers).astype(dtype)[None]
        trained, evaluated = (products_with_signs(training)(x) for training in (True, False))
        np.testing.assert_array_equal(trained, evaluated)
        seen = np.asarray(x, np.float64)
        if (
            not jnp.issubdtype(dtype, jnp.floating)
            or (np.abs(seen[seen != 0]) >= float(jnp.finfo(jnp.float32).tiny)).all()
        ):  # XLA takes a subnormal for zero on CPUs
            np.testing.assert_array_equal(evaluated, numpy_sign(seen) @ HADAMARD)
