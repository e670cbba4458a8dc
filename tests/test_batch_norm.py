"""`ovsw.nn.BatchNorm` against Flax's, `ovsw.nn.hardtanh` against its formula."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

import ovsw_jax as ovsw
from ovsw_jax.nn import BatchNorm


def flax_norm(features):
    return nnx.BatchNorm(features, momentum=0.9, use_fast_variance=False, rngs=nnx.Rngs(0))


def run(norm, x, dy, scale, bias):
    """Result, statistics after it and gradients."""
    graph, _, statistics = nnx.split(norm, nnx.Param, ...)
    statistics = jax.tree.map(lambda s: s.astype(x.dtype), nnx.to_pure_dict(statistics))

    def f(params, x):
        layer = nnx.merge(graph, params, statistics)
        layer.train()
        y = layer(x)
        return y, nnx.to_pure_dict(nnx.state(layer, nnx.Not(nnx.Param)))

    y, transpose, after = jax.vjp(f, {"scale": scale, "bias": bias}, x, has_aux=True)
    return y, after, *transpose(dy)


def ours_and_flax_s(x, seed=0):
    """What `run` gives of both norms, with random cotangents and parameters."""
    rng, features = np.random.default_rng(seed), x.shape[-1]
    dy, scale, bias = (
        jnp.asarray(rng.normal(size=size), x.dtype) for size in (x.shape, features, features)
    )
    norms = BatchNorm(features, rngs=nnx.Rngs(0)), flax_norm(features)
    return [run(norm, x, dy, scale, bias) for norm in norms]


@settings(max_examples=10, deadline=None)
@given(
    st.sampled_from([(1,), (5,), (4, 3), (1, 1, 1), (3, 5, 2)]),  # few, as each is compiled
    st.floats(-100, 100),
    st.integers(0, 2**32 - 1),
)
def test_results_and_gradients_are_flax_s(shape, shift, seed):
    with jax.enable_x64(True):
        x = jnp.asarray(np.random.default_rng(seed + 1).normal(shift, size=(*shape, 6)))
        ours, flax = ours_and_flax_s(x, seed)
        chex.assert_trees_all_close(ours, flax, rtol=1e-7, atol=1e-7)


def test_results_are_flax_s_to_the_last_bit():
    x = np.random.default_rng(1).normal(size=(8, 5, 5, 6))
    ours, flax = ours_and_flax_s(jnp.asarray(x, jnp.float32))
    chex.assert_trees_all_equal(ours[:2], flax[:2])
    chex.assert_trees_all_close(ours[2:], flax[2:], rtol=1e-4, atol=1e-5)


def test_a_constant_channel_has_flax_s_gradient():
    """316 times that of the result: it is not bounded, so that nothing is hidden."""
    rng = np.random.default_rng(0)
    dy = jnp.asarray(rng.normal(size=(8, 5, 5, 6)), jnp.float32)
    scale, bias, x = jnp.ones(6), jnp.zeros(6), jnp.full_like(dy, 3)
    ours = run(BatchNorm(6, rngs=nnx.Rngs(0)), x, dy, scale, bias)
    flax = run(flax_norm(6), x, dy, scale, bias)
    chex.assert_trees_all_close(ours, flax, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(ours[-1], (dy - dy.mean((0, 1, 2))) / np.sqrt(1e-5), rtol=1e-3)


def test_anything_unusual_is_left_to_flax():
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(8, 3)), jnp.float32)
    mask = jnp.arange(8)[:, None] < 5
    ours, flax = BatchNorm(3, rngs=nnx.Rngs(0)), flax_norm(3)
    chex.assert_trees_all_equal(ours(x, mask=mask), flax(x, mask=mask))
    ours.eval(), flax.eval()
    chex.assert_trees_all_equal(ours(x), flax(x))
    chex.assert_trees_all_equal(ours.mean[...], flax.mean[...])
    ours.train(), flax.train()
    ours.scale, flax.scale = nnx.data(None), nnx.data(None)
    chex.assert_trees_all_equal(ours(x), flax(x))
    ours, flax = BatchNorm(8, rngs=nnx.Rngs(0)), flax_norm(8)
    ours.set_attributes(axis=0), flax.set_attributes(axis=0)
    chex.assert_trees_all_equal(ours(x), flax(x))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"features": 0}, ValueError, "features=0 must be a positive integer"),
        ({"features": 3.0}, ValueError, "features=3.0 must be a positive integer"),
        ({"momentum": 1.1}, ValueError, r"momentum=1.1 is out of range.*from 0 to 1. Use 0.9"),
        ({"momentum": float("nan")}, ValueError, "momentum=nan is out of range"),
        ({"momentum": "0.9"}, TypeError, "momentum='0.9' is no .*single one that is known"),
        ({"epsilon": 0}, ValueError, "epsilon=0 is out of range.*must be above 0.*Use 1e-5"),
        ({"epsilon": 1e-50}, ValueError, "epsilon=1e-50 is out of range.*in float32 too"),
        ({"epsilon": None}, TypeError, "epsilon=None"),
        ({"dtype": "int8"}, TypeError, "dtype='int8' can't hold"),
        ({"param_dtype": "complex64"}, TypeError, "param_dtype='complex64' can't hold"),
        ({"axis_name": ["data"]}, TypeError, r"axis_name=\['data'\] names no axis.*\"data\""),
        ({"axis_name": ()}, TypeError, r"axis_name=\(\) names no axis"),
        ({"batch_groups": 0}, ValueError, "batch_groups=0 must be a positive integer"),
        ({"batch_groups": 2.0}, ValueError, "batch_groups=2.0 must be a positive integer"),
        (
            {"batch_groups": 2, "axis_name": "i"},
            ValueError,
            "=2 divides a .*'i' makes one of: leav",
        ),
        ({"use_running_average": None}, TypeError, "use_running_average=None is no bool"),
    ],
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        BatchNorm(**{"features": 3} | arguments, rngs=nnx.Rngs(0))


def test_bad_inputs():
    norm = BatchNorm(1, rngs=nnx.Rngs(0))
    # A norm of one feature would broadcast.
    with pytest.raises(ValueError, match=r"\(8, 3\) does not fit 1 features: its last axis must"):
        norm(np.zeros((8, 3), np.float32))
    with pytest.raises(TypeError, match="input="):
        norm(np.zeros((8, 1), complex))
    with pytest.raises(ValueError, match=r"\(0, 1\) is an empty batch.*call model.eval\(\) first"):
        norm(np.zeros((0, 1), np.float32))
    norm.set_attributes(use_running_average=None)
    with pytest.raises(ValueError, match="No `use_running_average`"):
        norm(np.ones((8, 1), np.float32))
    norm.eval()
    assert norm(np.zeros((0, 1), np.float32)).shape == (0, 1)
    assert norm.mean[...] == 0


def test_its_own_arguments_are_flax_s():
    x = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)
    options = {"momentum": 0.5, "epsilon": 0.1, "use_running_average": True}
    ours = BatchNorm(3, **options, rngs=nnx.Rngs(0))
    flax = nnx.BatchNorm(3, **options, use_fast_variance=False, rngs=nnx.Rngs(0))
    for call in ({}, {"use_running_average": False}, {}):  # before, in and after training
        chex.assert_trees_all_close(ours(x, **call), flax(x, **call), rtol=1e-6, atol=1e-6)
    chex.assert_trees_all_equal(nnx.state(ours), nnx.state(flax))
    view = nnx.view(ours, use_running_average=False)
    view(x)
    assert ours.use_running_average
    assert view.mean is ours.mean


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    ("x", "dtype", "param_dtype", "expected"),
    [
        ("bfloat16", None, "bfloat16", "bfloat16"),
        ("float16", None, "float32", "float32"),
        ("float32", "float16", "float32", "float16"),
        ("int8", None, "float32", "float32"),
    ],
)
def test_dtypes(x, dtype, param_dtype, expected, training):
    """Of the result, in both modes; the statistics keep float32, and gradients their own."""
    norm = BatchNorm(2, dtype=dtype, param_dtype=param_dtype, rngs=nnx.Rngs(0))
    norm.set_attributes(use_running_average=not training)
    graph, params, rest = nnx.split(norm, nnx.Param, ...)
    x = jnp.arange(-4, 4).reshape(4, 2).astype(x)

    def f(params):
        layer = nnx.merge(graph, params, rest, copy=True)
        y = layer(x)
        return jnp.sum(y.astype(jnp.float32) ** 2), (y, nnx.state(layer, nnx.BatchStat))

    gradients, (y, statistics) = jax.grad(f, has_aux=True)(params)
    assert y.dtype == expected
    assert {s.dtype for s in jax.tree.leaves(statistics)} == {jnp.dtype("float32")}
    assert {g.dtype for g in jax.tree.leaves(gradients)} == {jnp.dtype(param_dtype)}
    right = np.repeat([[-1.3416], [-0.4472], [0.4472], [1.3416]], 2, 1)
    right = right if training else np.asarray(x, np.float64)
    np.testing.assert_allclose(np.asarray(y, np.float64), right, rtol=2e-2)


def test_statistics_keep_their_dtype():
    """Of a model converted to half precision, and of float64 images: a `lax.scan` asks for it."""
    with jax.enable_x64(True):
        for x, kept in (("float64", "float32"), ("float32", "bfloat16")):
            norm = BatchNorm(2, rngs=nnx.Rngs(0))
            norm.mean.set_value(norm.mean[...].astype(kept))
            norm.var.set_value(norm.var[...].astype(kept))
            norm(jnp.ones((3, 2), x))
            assert norm.mean[...].dtype == norm.var[...].dtype == kept
            np.testing.assert_allclose(norm.mean[...].astype(float), 0.1, rtol=1e-2)


def test_the_batch_of_a_vmap_is_spread_over_its_axis():
    rng = np.random.default_rng(0)
    x, dy = (jnp.asarray(rng.normal(size=(6, 2)), jnp.float32) for _ in range(2))
    graph, state = nnx.split(BatchNorm(2, axis_name="images", rngs=nnx.Rngs(0)))

    def one(x, dy):
        def f(x):
            layer = nnx.merge(graph, state, copy=True)
            return layer(x), layer.mean[...]

        y, transpose, mean = jax.vjp(f, x, has_aux=True)
        return y, transpose(dy)[0], mean

    y, gradient, mean = jax.jit(jax.vmap(one, axis_name="images"))(x, dy)
    whole = BatchNorm(2, rngs=nnx.Rngs(0))
    right, transpose = jax.vjp(lambda x: nnx.clone(whole)(x), x)
    chex.assert_trees_all_close(y, right, rtol=1e-5, atol=1e-6)
    chex.assert_trees_all_close(gradient, transpose(dy)[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(mean, np.tile(0.1 * x.mean(0), (6, 1)), rtol=1e-5)


def test_parts_of_a_batch_are_batches_of_their_own():
    """Results and gradients are those of a loop over the parts; statistics are their means."""
    rng = np.random.default_rng(0)
    scale, bias, x, dy = (rng.normal(2, 1, size) for size in (3, 3, (6, 2, 3), (6, 2, 3)))
    with jax.enable_x64(True):
        arrays = [jnp.asarray(a, jnp.float64) for a in (x, dy, scale, bias)]
        norm = BatchNorm(3, batch_groups=3, rngs=nnx.Rngs(0))
        y, statistics, to_params, to_x = run(norm, *arrays)
        parts = [
            run(BatchNorm(3, rngs=nnx.Rngs(0)), part, d, *arrays[2:])
            for part, d in zip(jnp.split(arrays[0], 3), jnp.split(arrays[1], 3), strict=True)
        ]
        ys, all_statistics, all_to_params, all_to_x = zip(*parts, strict=True)
        expected = (
            jnp.concatenate(ys),
            jax.tree.map(lambda *s: sum(s) / 3, *all_statistics),
            jax.tree.map(lambda *g: sum(g), *all_to_params),
            jnp.concatenate(all_to_x),
        )
        chex.assert_trees_all_close((y, statistics, to_params, to_x), expected, rtol=1e-12)
        whole = run(BatchNorm(3, rngs=nnx.Rngs(0)), *arrays)
        assert not np.allclose(y, whole[0], rtol=0.01)


def test_parts_of_a_batch_in_a_whole_network():
    x = np.random.default_rng(0).normal(size=(6, 8, 8, 3)).astype(np.float32)

    def trained(x, groups):
        model = ovsw.models.SmallResNet(4, widths=(8,), rngs=nnx.Rngs(0))
        model.set_attributes(nnx.BatchNorm, batch_groups=groups)
        model.train()
        return model(x), nnx.to_pure_dict(nnx.state(model, nnx.BatchStat))

    y, statistics = trained(x, 2)
    halves = [trained(half, 1) for half in np.split(x, 2)]
    expected = jnp.concatenate([h[0] for h in halves])
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)
    means = jax.tree.map(lambda a, b: (a + b) / 2, *(h[1] for h in halves))
    chex.assert_trees_all_close(statistics, means, rtol=1e-4, atol=1e-6)


def test_what_cannot_be_divided_into_parts():
    norm = BatchNorm(3, batch_groups=4, rngs=nnx.Rngs(0))
    x = np.ones((6, 3), np.float32)
    with pytest.raises(ValueError, match=r"\(6, 3\) can't be divided by batch_groups=4.*multiple"):
        norm(x)
    with pytest.raises(ValueError, match=r"\(3,\) can't be divided by batch_groups=4"):
        norm(x[0])
    with pytest.raises(ValueError, match=r"batch_groups=4 does not go with mask=.*batch_groups=1"):
        norm(np.ones((8, 3), np.float32), mask=np.ones((8, 1), bool))
    norm.set_attributes(nnx.BatchNorm, axis_name="data")
    with pytest.raises(ValueError, match="batch_groups=4 divides a batch that axis_name='data'"):
        norm(np.ones((8, 3), np.float32))
    norm.set_attributes(batch_groups=0)
    with pytest.raises(ValueError, match="batch_groups=0 must be a positive integer"):
        norm(x)
    norm.eval()
    assert norm(x).shape == x.shape  # evaluation divides nothing


def kept_for_backward(model, x):
    """Shapes of what the backward pass needs that have the axes of `x`."""
    graph, params, rest = nnx.split(model, nnx.Param, ...)
    params, rest = nnx.to_pure_dict(params), nnx.to_pure_dict(rest)

    def backward(params, rest, x):
        def f(params, x):
            layer = nnx.merge(graph, params, rest)
            layer.train()
            return layer(x)

        return jax.vjp(f, params, x)[1]

    kept = jax.tree.leaves(jax.eval_shape(backward, params, rest, x))
    return [leaf for leaf in kept if leaf.ndim == x.ndim and leaf.shape[0] == x.shape[0]]


def test_the_backward_pass_keeps_the_input_alone():
    x = jax.ShapeDtypeStruct((8, 5, 5, 6), jnp.float32)
    (kept,) = kept_for_backward(BatchNorm(6, rngs=nnx.Rngs(0)), x)
    assert kept.shape == x.shape
    assert len(kept_for_backward(flax_norm(6), x)) > 1
    half = jax.ShapeDtypeStruct(x.shape, jnp.bfloat16)
    (kept,) = kept_for_backward(BatchNorm(6, dtype=jnp.bfloat16, rngs=nnx.Rngs(0)), half)
    assert kept.dtype == jnp.bfloat16


# XLA takes subnormal numbers for zero on a CPU, or keeps them, as its version does.
@given(st.lists(st.floats(width=32, allow_subnormal=False), min_size=1, max_size=8))
def test_hardtanh_and_its_gradient(values):
    x = jnp.asarray(values, jnp.float32)
    y, transpose = jax.vjp(ovsw.nn.hardtanh, x)
    np.testing.assert_array_equal(y, np.clip(np.asarray(x), -1, 1))
    (gradient,) = transpose(jnp.full_like(x, 3))
    np.testing.assert_array_equal(gradient, np.where(np.abs(np.asarray(x)) < 1, 3, 0))


@pytest.mark.parametrize("network", [ovsw.models.CifarResNet20, ovsw.models.CifarResNet18])
def test_a_binary_activation_is_kept_as_bits(network):
    """What the backward pass of a network needs: under ten bytes for each output of a layer."""
    model = nnx.eval_shape(lambda: network(10, rngs=nnx.Rngs(0)))
    activations = kept_for_backward(model, jax.ShapeDtypeStruct((4, 32, 32, 3), jnp.float32))
    layers = [leaf for leaf in activations if leaf.dtype == jnp.uint32]
    latent = jax.tree.leaves(ovsw.latent_mask(nnx.to_pure_dict(nnx.state(model, nnx.Param))))
    assert len(layers) == sum(latent)
    floats = [leaf for leaf in activations if leaf.dtype == jnp.float32 and leaf.shape[1] > 1]
    assert len(floats) <= 2 * len(layers) + 3
