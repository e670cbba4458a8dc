"""The networks' batch norm and hardtanh, against Flax's and the formulas."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

import ovsw_jax as ovsw
from ovsw_jax.models.batch_norm import BatchNorm


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


@settings(max_examples=10, deadline=None)
@given(
    st.sampled_from([(1,), (5,), (4, 3), (1, 1, 1), (3, 5, 2)]),  # few, as each is compiled
    st.floats(-100, 100),
    st.integers(0, 2**32 - 1),
)
def test_results_and_gradients_are_flax_s(shape, shift, seed):
    features, rng = 6, np.random.default_rng(seed)
    with jax.enable_x64(True):
        x, dy = (jnp.asarray(rng.normal(size=(*shape, features))) for _ in range(2))
        scale, bias = (jnp.asarray(rng.normal(size=features)) for _ in range(2))
        ours = run(BatchNorm(features, rngs=nnx.Rngs(0)), x + shift, dy, scale, bias)
        flax = run(flax_norm(features), x + shift, dy, scale, bias)
        chex.assert_trees_all_close(ours, flax, rtol=1e-7, atol=1e-7)


def test_results_are_flax_s_to_the_last_bit():
    rng = np.random.default_rng(0)
    x, dy = (jnp.asarray(rng.normal(size=(8, 5, 5, 6)), jnp.float32) for _ in range(2))
    scale, bias = (jnp.asarray(rng.normal(size=6), jnp.float32) for _ in range(2))
    ours = run(BatchNorm(6, rngs=nnx.Rngs(0)), x, dy, scale, bias)
    flax = run(flax_norm(6), x, dy, scale, bias)
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


# XLA takes subnormal numbers for zero on a CPU, or keeps them, as its version does.
@given(st.lists(st.floats(width=32, allow_subnormal=False), min_size=1, max_size=8))
def test_hardtanh_and_its_gradient(values):
    x = jnp.asarray(values, jnp.float32)
    y, transpose = jax.vjp(ovsw.models.hardtanh, x)
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
