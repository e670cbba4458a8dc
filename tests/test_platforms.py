"""Layers traced for GPUs and TPUs give what they give on a CPU: signs exactly, sums up to rounding.

What is traced for another platform also runs here, so all of this is computed on the CPU.
"""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import AxisType, PartitionSpec

import ovsw_jax as ovsw
from ovsw_jax.nn._kernels.arithmetic import sample_deviation
from ovsw_jax.nn._kernels.recomputed_signs import _exact_dtypes
from ovsw_jax.nn._kernels.sums import mean_and_variance, sum_pair
from ovsw_jax.nn.batch_norm import normalize_batch
from ovsw_jax.nn.platforms import platform
from ovsw_jax.nn.sign_kinds import is_scale_free
from tests.layer_oracle import numpy_conv, numpy_sign

ACCELERATORS = ("gpu", "tpu")

accelerators = pytest.mark.parametrize("name", ACCELERATORS)


def normal(seed, shape, dtype=jnp.float32):
    return jax.random.normal(jax.random.key(seed), shape, dtype)


def on(name, function, *arguments):
    """What a function gives, traced anew for a platform."""
    with ovsw.nn.compute_for(name):
        return jax.jit(lambda *a: function(*a))(*arguments)


def result_and_gradients(layer, x):
    """The result of an NNX layer and gradients of its parameters and input."""
    graph, params, rest = nnx.split(layer, nnx.Param, ...)

    def loss(params, x):
        y = nnx.merge(graph, params, rest)(x)
        return jnp.sum(jnp.sin(y.astype(jnp.float32))), y

    (_, y), gradients = jax.value_and_grad(loss, (0, 1), has_aux=True)(params, x)
    return y, jax.tree.leaves(gradients)


def make_conv(**kwargs):
    return ovsw.nn.BinaryConv(6, 4, (3, 3), rngs=nnx.Rngs(0), **kwargs)


LAYERS = {
    "plain": make_conv,
    "strided": functools.partial(make_conv, strides=2, padding=1, kernel_dilation=2),
    "circular": functools.partial(make_conv, padding="CIRCULAR", use_bias=True),
    "grouped": functools.partial(make_conv, feature_group_count=2),
    "learned factor": functools.partial(make_conv, scale="learned"),
    "not normalised": functools.partial(make_conv, normalize_input=False),
    "sharpness": functools.partial(
        make_conv, input_sign=functools.partial(ovsw.nn.tanh_sign, sharpness=2.0)
    ),
    "module": functools.partial(make_conv, input_sign=ovsw.nn.SharpeningSign(3.0)),
    "thresholds": lambda: make_conv(
        input_sign=ovsw.nn.LearnedThresholdSign(6), normalize_input=False
    ),
    "standardised": functools.partial(make_conv, kernel_sign=ovsw.nn.standardized_sign),
    "own sign": functools.partial(make_conv, input_sign=lambda x: ovsw.nn.approx_sign(x - 0.1)),
    "magnitude": functools.partial(make_conv, kernel_sign=ovsw.nn.magnitude_aware_sign, scale=None),
    "real input": functools.partial(make_conv, input_sign=None),
    "real kernel": functools.partial(make_conv, kernel_sign=None, scale=None),
    "dense": lambda: ovsw.nn.BinaryDense(6, 4, use_bias=True, rngs=nnx.Rngs(0)),
}


@accelerators
@pytest.mark.parametrize("kind", LAYERS)
def test_a_layer_is_the_same_on_every_platform(name, kind):
    x = normal(1, (5, 7, 8, 6))
    y, gradients = on("cpu", result_and_gradients, LAYERS[kind](), x)
    other_y, other_gradients = on(name, result_and_gradients, LAYERS[kind](), x)
    chex.assert_trees_all_close(other_y, y, rtol=1e-6, atol=1e-6)
    assert any(jnp.any(g != 0) for g in gradients)
    chex.assert_trees_all_close(other_gradients, gradients, rtol=1e-4, atol=1e-4)


@accelerators
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_products_of_signs_are_exact(name, dtype):
    layer = make_conv(scale=None, dtype=dtype, padding=1)
    x = normal(2, (2, 5, 4, 6))
    kernel = numpy_sign(np.asarray(layer.latent_kernel[...]))
    expected = numpy_conv(numpy_sign(np.asarray(x)), kernel, pads=((1, 1), (1, 1)))
    y = on(name, layer, x)
    assert y.dtype == dtype
    np.testing.assert_array_equal(np.asarray(y, np.float64), expected)


def test_a_gpu_sums_in_float16_only_where_that_is_exact():
    def dtypes(*shape, dtype=jnp.float32):
        with ovsw.nn.compute_for("gpu"):
            return _exact_dtypes(jnp.ones(shape, dtype))

    half = (jnp.float16, jnp.float16)
    assert dtypes(3, 3, 256, 8) == half  # 2,304 products, an even number in every window
    assert dtypes(3, 3, 227, 8) == half  # 2,043
    assert dtypes(3, 3, 229, 8) == (jnp.float32, jnp.float32)  # 2,061, odd
    assert dtypes(3, 3, 512, 8) == (jnp.float32, jnp.float32)  # 4,608
    assert dtypes(3, 3, 512, 8, dtype=jnp.bfloat16) == half  # rounded to 8 bits at the end anyway
    assert dtypes(70000, 8, dtype=jnp.bfloat16) == (jnp.bfloat16, jnp.float32)  # beyond its range
    even = np.arange(-4096, 4097, 2)
    np.testing.assert_array_equal(even.astype(np.float16).astype(int), even)
    assert int(np.float16(2049)) == 2048


@accelerators
def test_gradients_do_not_pass_through_float16(name):
    """A cotangent below float16's range would be lost in it."""
    layer = make_conv()
    x = normal(3, (2, 4, 4, 6))
    gradient = on(name, jax.grad(lambda x: 1e-9 * jnp.sum(layer(x) * x[..., :4])), x)
    reference = on("cpu", jax.grad(lambda x: 1e-9 * jnp.sum(layer(x) * x[..., :4])), x)
    chex.assert_trees_all_close(gradient * 1e9, reference * 1e9, rtol=1e-4, atol=1e-4)


@accelerators
@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf, -jnp.inf])
def test_a_sample_that_is_not_finite_shows(name, bad):
    x = normal(4, (3, 4, 4, 6)).at[1, 0, 0, 0].set(bad)
    y = on(name, make_conv(), x)
    assert np.isnan(y).all((1, 2, 3)).tolist() == [False, True, False]
    assert np.isfinite(y).all((1, 2, 3)).tolist() == [True, False, True]


@accelerators
def test_tiny_activations_keep_their_signs(name):
    """A quotient may be a zero; a sign is that of the activation."""
    layer = ovsw.nn.BinaryDense(4, 3, scale=None, rngs=nnx.Rngs(0))
    x = jnp.array([[3e18, -1e-30, 1e-30, -3e18]])
    np.testing.assert_array_equal(on(name, layer, x), on("cpu", layer, x))


@accelerators
def test_second_derivatives(name):
    """As of a layer whose signs are not known to be two-valued, which multiplies them."""
    multiplied = make_conv(kernel_sign=lambda w: ovsw.nn.ste_sign(w))
    x = normal(5, (2, 4, 4, 6))

    def curvature(layer):
        gradient = jax.grad(lambda x: jnp.sum(layer(x) ** 2))
        return jax.grad(lambda x: jnp.sum(gradient(x) ** 2))

    expected = on("cpu", curvature(multiplied), x)
    assert bool(jnp.any(expected != 0))
    actual = on(name, curvature(make_conv()), x)
    chex.assert_trees_all_close(actual, expected, rtol=1e-4, atol=1e-3)


@accelerators
def test_vmap_and_shard_map(name):
    layer = make_conv()
    x = normal(6, (8, 4, 4, 6))
    expected = on(name, result_and_gradients, layer, x)
    one = on(name, jax.vmap(lambda x: result_and_gradients(layer, x[None])[1][-1]), x)
    chex.assert_trees_all_close(one[:, 0], expected[1][-1], rtol=1e-4, atol=1e-5)
    mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,))
    spec = PartitionSpec("data")
    mapped = jax.shard_map(
        lambda x: jax.grad(lambda x: jnp.sum(jnp.sin(layer(x))))(x),
        mesh=mesh,
        in_specs=spec,
        out_specs=spec,
    )
    chex.assert_trees_all_close(on(name, mapped, x), expected[1][-1], rtol=1e-4, atol=1e-5)


@accelerators
def test_explicit_axes(name):
    mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Explicit,))
    layer = make_conv()
    x = normal(7, (4, 4, 4, 6))
    expected = on(name, jax.grad(lambda x: jnp.sum(jnp.sin(layer(x)))), x)
    with jax.set_mesh(mesh):
        sharded = jax.device_put(x, jax.NamedSharding(mesh, PartitionSpec("data")))
        actual = on(name, jax.grad(lambda x: jnp.sum(jnp.sin(layer(x)))), sharded)
    chex.assert_trees_all_close(np.asarray(actual), np.asarray(expected), rtol=1e-5, atol=1e-5)


@accelerators
def test_linen_layers(name):
    x = normal(8, (3, 5, 5, 6))
    for sign in (ovsw.nn.approx_sign, ovsw.linen.LearnedThresholdSign()):
        normalize = not isinstance(sign, linen.Module)
        layer = ovsw.linen.BinaryConv(
            4, (3, 3), input_sign=sign, normalize_input=normalize, train=True
        )
        variables = layer.init(jax.random.key(0), x)

        def loss(v, x, layer=layer):
            return jnp.sum(jnp.sin(layer.apply(v, x)))

        expected = on("cpu", jax.value_and_grad(loss, (0, 1)), variables, x)
        actual = on(name, jax.value_and_grad(loss, (0, 1)), variables, x)
        chex.assert_trees_all_close(actual, expected, rtol=1e-4, atol=1e-4)


@accelerators
@settings(max_examples=20)
@given(seed=st.integers(0, 2**32 - 1), mean=st.floats(-3, 3), scale=st.floats(1, 10))
def test_batch_norm_in_one_pass(name, seed, mean, scale):
    rng = np.random.default_rng(seed)
    x = rng.normal(mean, scale, (16, 3, 2))
    slope, bias, shift = rng.normal(size=(3, 2))
    cotangent = rng.normal(size=x.shape)

    def run(x, slope, bias):
        y, mean, var = normalize_batch(x, slope, bias, 1e-5, shift=jnp.asarray(shift, x.dtype))
        return jnp.sum(y * cotangent.astype(y.dtype)), (y, mean, var)

    arguments = [jnp.asarray(a, jnp.float32) for a in (x, slope, bias)]
    gradients, (y, m, v) = on(name, jax.grad(run, (0, 1, 2), has_aux=True), *arguments)
    np.testing.assert_allclose(m, x.mean((0, 1)), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(v, x.var((0, 1)), rtol=1e-3)
    expected = (x - x.mean((0, 1))) / np.sqrt(x.var((0, 1)) + 1e-5) * slope + bias
    np.testing.assert_allclose(y, expected, rtol=1e-3, atol=1e-3)
    reference = on("cpu", jax.grad(run, (0, 1, 2), has_aux=True), *arguments)[0]
    chex.assert_trees_all_close(gradients, reference, rtol=1e-2, atol=1e-2)


@accelerators
def test_running_means_keep_the_variance_of_a_distant_mean(name):
    """Without a shift, 1e6^2 would leave no digit of a variance of 1."""
    x = 1e5 + normal(9, (512, 1))
    _, mean, var = on(
        name,
        lambda x: normalize_batch(x, jnp.ones(1), jnp.zeros(1), 1e-5, shift=jnp.full(1, 1e5 - 1.0)),
        x,
    )
    np.testing.assert_allclose(var, np.asarray(x, np.float64).var(0), rtol=1e-3)
    np.testing.assert_allclose(mean, np.asarray(x, np.float64).mean(0), rtol=1e-6)


@accelerators
def test_a_constant_filter_has_the_factor_zero(name):
    kernel = jnp.stack([jnp.full(100, 0.3), normal(10, (100,))], -1)
    factors = on(name, ovsw.nn.standardized_scale, kernel)
    assert factors[0] == 0
    chex.assert_trees_all_close(factors, ovsw.nn.standardized_scale(kernel), rtol=1e-5)


@accelerators
def test_pairs_of_sums(name):
    a, b = normal(11, (4, 3, 2)), normal(12, (4, 3, 2))
    for keepdims in (False, True):
        actual = on(name, lambda a, b, k=keepdims: sum_pair(a, b, (0, 1), keepdims=k), a, b)
        expected = [np.sum(np.asarray(x), (0, 1), keepdims=keepdims) for x in (a, b)]
        chex.assert_trees_all_close(actual, tuple(expected), rtol=1e-5, atol=1e-6)
    wide = np.asarray(a, np.float64)
    mean, variance = on(name, lambda x: mean_and_variance(x, 0.5, (1, 2)), a)
    np.testing.assert_allclose(mean[:, 0, 0], wide.mean((1, 2)), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(variance[:, 0, 0], wide.var((1, 2)), rtol=1e-5)


@accelerators
def test_deviation_of_samples(name):
    x = normal(13, (3, 4, 5))
    deviation, finite = on(name, lambda x: sample_deviation(x, 2), x)
    expected = np.sqrt(np.asarray(x, np.float64).var((1, 2), ddof=1) + 1e-5)
    np.testing.assert_allclose(deviation[:, 0, 0], expected, rtol=1e-5)
    assert finite.tolist() == np.ones((3, 1, 1)).tolist()


@accelerators
def test_hardtanh(name):
    x = jnp.array([-2.0, -1.0, -0.5, 0.0, 1.0, 3.0, jnp.nan])
    gradient = on(name, jax.grad(lambda x: jnp.sum(ovsw.nn.hardtanh(x) * jnp.arange(7.0))), x)
    np.testing.assert_array_equal(gradient, [0, 0, 2, 3, 0, 0, 0])


@accelerators
def test_what_is_kept_are_activations_and_no_signs(name):
    """On the CPU the layer keeps words of bits, elsewhere the activations themselves."""
    layer = make_conv()
    x = normal(14, (2, 4, 4, 6))

    def kept(x):
        return jax.tree.leaves(jax.vjp(layer, x)[1])

    def shapes(platform_name):
        with ovsw.nn.compute_for(platform_name):
            return [(a.shape, str(a.dtype)) for a in jax.eval_shape(kept, x)]

    assert ((2, 4, 4, 1), "uint32") in shapes("cpu")
    others = shapes(name)
    assert not any(dtype == "uint32" for _, dtype in others)
    assert others.count((x.shape, "float32")) == 1


def test_scale_free_signs():
    free = [ovsw.nn.sign, ovsw.nn.approx_sign, ovsw.nn.SharpeningSign(1.0)]
    free.append(functools.partial(ovsw.nn.swish_sign, beta=2.0))
    assert all(map(is_scale_free, free))
    bound = [ovsw.nn.LearnedThresholdSign(2), ovsw.nn.standardized_sign, lambda x: x, None]
    assert not any(map(is_scale_free, bound))


def test_jit_compiles_again_for_another_platform():
    seen = []

    @jax.jit
    def f(x):
        seen.append(platform())
        return x

    for name in ("cpu", "gpu", "gpu", "tpu"):
        with ovsw.nn.compute_for(name):
            f(1.0)
    f(2.0)
    assert seen == ["cpu", "gpu", "tpu", "cpu"]


def test_the_default_is_that_of_the_default_device():
    assert platform() == jax.default_backend() == "cpu"
    with jax.default_device("cpu"), ovsw.nn.compute_for("tpu"):
        assert platform() == "tpu"
    with jax.default_device(jax.devices()[0]):
        assert platform() == "cpu"


@pytest.mark.parametrize("bad", ["cuda", "TPU", None, 1])
def test_unknown_platforms(bad):
    with pytest.raises(ValueError, match=r"platform=.* is unknown: .*'cpu', 'gpu', 'tpu'"):
        ovsw.nn.compute_for(bad)
