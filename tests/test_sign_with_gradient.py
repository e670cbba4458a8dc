"""Signs made from their pseudo-gradients: a user's own is one of the library's kind."""

import copy
import functools
import inspect
import pickle

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given
from hypothesis import strategies as st

import ovsw_jax as ovsw
from ovsw_jax.nn import sign_with_gradient
from ovsw_jax.nn.sign_kinds import is_two_valued
from tests.test_sign_convolution import counts_bits


@sign_with_gradient
def triangle(x):
    """As `approx_sign`."""
    return jnp.maximum(2 - 2 * jnp.abs(x), 0)


@sign_with_gradient
def bump(x, width=1.0, *, height=1.0):
    """Its pseudo-gradient is a parabola."""
    return height * jnp.maximum(1 - jnp.square(x / width), 0)


partial_bump = functools.partial(bump, height=2.0)
standardized = functools.partial(ovsw.nn.standardized_sign, sign=triangle)
# Options of a layer, of nn or linen, with this many features where the class asks for them.
SIGNS = {
    "itself": lambda *_: {"input_sign": triangle},
    "of a lambda": lambda *_: {"input_sign": sign_with_gradient(lambda x: jnp.exp(-jnp.abs(x)))},
    "of the kernel": lambda *_: {"kernel_sign": triangle},
    "in partial": lambda *_: {"input_sign": functools.partial(partial_bump, width=0.5)},
    "of a standardised kernel": lambda *_: {"kernel_sign": standardized},
    "behind a threshold": lambda package, *features: {
        "input_sign": package.LearnedThresholdSign(*features, sign=triangle),
        "normalize_input": False,
    },
    "of a sharpness": lambda package, *_: {"input_sign": package.SharpeningSign(2.0, sign=bump)},
}


@pytest.mark.parametrize("name", SIGNS)
def test_layers_count_bits(name):
    x = jnp.ones((1, 3, 3, 2))
    options = SIGNS[name](ovsw.nn, 2)
    assert counts_bits(ovsw.nn.BinaryConv(2, 2, (2, 2), **options, rngs=nnx.Rngs(0)), x)
    conv = ovsw.linen.BinaryConv(2, (2, 2), **SIGNS[name](ovsw.linen), train=True)
    assert counts_bits(lambda x: conv.init_with_output(jax.random.key(0), x)[0], x)


def test_other_functions_are_not_known_to_be_two_valued():
    class Subclass(ovsw.nn.SharpeningSign):
        def __call__(self, x):
            return jnp.sign(x)

    copied = functools.wraps(triangle)(lambda x: jnp.sign(x))
    for sign in (copied, lambda x: triangle(x), jax.jit(triangle), Subclass(sign=bump), [], None):
        assert not is_two_valued(sign)


def layers(package, sign):
    """A function of x: outputs and gradients of a convolution and a dense layer in both modes."""
    signs = {"input_sign": sign, "kernel_sign": sign}
    rngs = nnx.Rngs(0)
    if package is ovsw.nn:
        conv = package.BinaryConv(4, 3, (2, 2), **signs, rngs=rngs)
        dense = package.BinaryDense(3, 2, **signs, rngs=rngs)
        graph, params = nnx.split(nnx.Sequential(conv, dense))

        def apply(params, x, training):
            model = nnx.merge(graph, params)
            return nnx.view(model, deterministic=not training)(x)

    else:
        conv, dense = package.BinaryConv(3, (2, 2), **signs), package.BinaryDense(2, **signs)
        x, key = jnp.zeros((1, 4, 4, 4)), jax.random.key(0)
        params = conv.init(key, x, train=False), dense.init(key, x[..., :3], train=False)

        def apply(params, x, training):
            y = conv.apply(params[0], x, train=training)
            return dense.apply(params[1], y, train=training)

    def both(x, dy):
        results = []
        for training in (True, False):
            f = functools.partial(apply, training=training)
            y, transpose = jax.vjp(f, params, x)
            results.append((y, transpose(dy)))
        return results

    return jax.jit(both)


@pytest.mark.parametrize("package", [ovsw.nn, ovsw.linen], ids=["nnx", "linen"])
def test_with_the_derivative_of_approx_sign_layers_give_the_same_bits(package):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(2, 4, 4, 4)), jnp.float32)
    dy = jnp.asarray(rng.normal(size=(2, 4, 4, 2)), jnp.float32)
    ours, its = layers(package, triangle)(x, dy), layers(package, ovsw.nn.approx_sign)(x, dy)
    chex.assert_trees_all_equal(ours, its)
    assert all(np.any(gradient) for _, (_, gradient) in ours)


@jax.jit
def value_and_slopes(x, width, height):
    def total(x, width, height):
        y = bump(x, width, height=height)
        return y.sum(), y

    slopes, y = jax.grad(total, (0, 1, 2), has_aux=True)(x, width, height)
    return y, *slopes


@given(
    x=st.lists(st.floats(-5, 5, width=32, allow_subnormal=False), min_size=4, max_size=4),
    width=st.floats(0.125, 4, width=32),
    height=st.floats(-3, 3, width=32, allow_subnormal=False),
)
def test_the_derivative_is_the_gradient_and_constants_get_none(x, width, height):
    x = np.asarray(x, np.float32)
    y, slope, to_width, to_height = value_and_slopes(x, width, height)
    np.testing.assert_array_equal(y, np.where(x >= 0, 1, -1))
    expected = height * np.maximum(1 - np.square(np.float64(x) / width), 0)
    np.testing.assert_allclose(slope, expected, rtol=1e-4, atol=1e-5)
    assert to_width == to_height == 0
    assert value_and_slopes._cache_size() == 1


def test_higher_derivatives_are_those_of_the_pseudo_gradient():
    def second(sign):
        return jax.grad(jax.grad(lambda x: sign(x) ** 2))(0.5)

    assert second(triangle) == second(ovsw.nn.approx_sign) == 2 * (1 - 2)


def test_one_number_is_the_slope_everywhere():
    tangent = jnp.asarray([1.5, -0.0, jnp.nan], jnp.bfloat16)
    for number in (1, 2.0, np.float32(-3)):
        sign = only_returns(number)
        y, slope = jax.jvp(sign, (jnp.zeros(3, jnp.bfloat16),), (tangent,))
        assert y.dtype == slope.dtype == jnp.bfloat16
        expected = np.float32([1.5, -0.0, np.nan]) * number
        np.testing.assert_array_equal(np.asarray(slope, np.float32), expected)


def test_a_boolean_derivative_is_a_window_of_ones():
    sign = sign_with_gradient(lambda x: jnp.abs(x) < 2)
    assert jax.vmap(jax.grad(sign))(jnp.array([1.0, 2.0])).tolist() == [1, 0]


@pytest.mark.parametrize("sign", [triangle, bump, ovsw.nn.ste_sign, ovsw.nn.swish_sign])
def test_a_sign_is_a_function_of_its_own_name(sign):
    assert inspect.isfunction(sign)
    assert sign.__doc__
    assert sign.__name__ in repr(sign)
    assert inspect.signature(sign).return_annotation is jax.Array
    assert pickle.loads(pickle.dumps(sign)) is copy.deepcopy(sign) is sign


@pytest.mark.parametrize(
    ("derivative", "message"),
    [
        (3, "derivative=3 is no function: give one of x .* such as lambda x"),
        (np.ones(2), "is no function"),
        (dict, "derivative=<class 'dict'> is no function"),
        (ovsw.nn.PReLU(2), "is no function"),
        (ovsw.linen.PReLU(), "is no function"),
        (ovsw.nn.approx_sign, "approx_sign .* is a sign already: use it as it is"),
        (functools.partial(bump, width=2.0), "is a sign already"),
        (min, "derivative=<built-in function min> has no known parameters: call it in a f"),
        (lambda: 1, r"takes \(\): it must take x by position"),
        (lambda *x: 1, r"takes \(\*x\)"),
        (lambda x, **constants: 1, r"takes \(x, \*\*constants\).* Write them out, as in \(x, wi"),
    ],
)
def test_what_is_no_derivative_is_refused(derivative, message):
    with pytest.raises(TypeError, match=message):
        sign_with_gradient(derivative)


def only_returns(value):
    def slope(x):
        return value

    return sign_with_gradient(slope)


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (None, TypeError, r"the derivative of slope gave None.* shape of x, \(3,\), or one number"),
        (1j, TypeError, "the derivative of slope gave 1j, which is no real array"),
        (np.ones(3, complex), TypeError, "which is no real array"),
        ([1.0, 1.0, 1.0], TypeError, r"gave \[1.0, 1.0, 1.0\]"),
        (np.ones(1), ValueError, r"gave shape \(1,\) for x of shape \(3,\): let it return one sl"),
        (jnp.ones((2, 3)), ValueError, r"gave shape \(2, 3\)"),
        (jnp.float32(1), ValueError, r"gave shape \(\) .* or one Python number"),
    ],
)
def test_what_is_no_slope_is_refused(value, error, message):
    sign = only_returns(value)
    assert sign(jnp.ones(3)).tolist() == [1, 1, 1]
    for gradient in (jax.grad, lambda f: jax.jit(jax.grad(f))):
        with pytest.raises(error, match=message):
            gradient(lambda x: sign(x).sum())(jnp.ones(3))


@pytest.mark.parametrize(
    ("arguments", "keywords", "message"),
    [
        (("a",), {}, "x='a' is no real array"),
        ((1j,), {}, "x=1j is no real array"),
        ((1.0, None), {}, "width=None is no real array"),
        ((1.0,), {"height": 1j}, "height=1j is no real array"),
        ((), {}, r"bump\(\) missing a required argument: 'x'"),
        ((1.0, 1.0, 1.0), {}, r"bump\(\) too many positional arguments"),
        ((1.0,), {"depth": 1}, r"bump\(\) got an unexpected keyword argument 'depth'"),
    ],
)
def test_bad_arguments_of_a_sign(arguments, keywords, message):
    with pytest.raises(TypeError, match=message):
        bump(*arguments, **keywords)


def test_a_check_that_is_no_function_is_refused():
    with pytest.raises(TypeError, match="check=3 is no function: give one of the constants"):
        sign_with_gradient(lambda x: 1, check=3)


def test_constants_are_checked_as_they_are_given():
    seen = []
    sign = sign_with_gradient(
        lambda x, width, height=2.0: height, check=lambda **constants: seen.append(constants)
    )
    sign(1.0, np.float32(3))
    jax.jit(lambda x, width: sign(x, width=width))(1.0, 3)
    assert seen[0] == {"width": 3, "height": 2.0}
    assert isinstance(seen[1]["width"], jax.core.Tracer)
    assert seen[1]["height"] == 2.0
