"""Derivatives of the pseudo-gradients, against signs whose surrogate JAX differentiates itself."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax import lax

import ovsw_jax as ovsw
from ovsw_jax.nn import BatchNorm


def surrogate(smooth):
    """The sign in the forward pass, `smooth` in every derivative."""
    return lambda x: lax.stop_gradient(ovsw.nn.sign(x) - smooth(x)) + smooth(x)


def quadratic(x):
    x = jnp.clip(x, -1, 1)
    return jnp.where(x < 0, 2 * x + x * x, 2 * x - x * x)


def sign_swish(x, beta=5.0):
    s = jax.nn.sigmoid(beta * x)
    return 2 * s * (1 + beta * x * (1 - s)) - 1


def standardized(kernel):
    centered = kernel - kernel.mean(0)
    return centered / jnp.sqrt(jnp.var(kernel, axis=0, ddof=1) + 1e-5)


LINEAR, QUADRATIC = surrogate(lambda x: x), surrogate(quadratic)
CLIPPED = surrogate(lambda x: jnp.clip(x, -1, 1))
SIGNS = {
    "sign": (ovsw.nn.sign, surrogate(jnp.zeros_like)),
    "straight-through": (ovsw.nn.ste_sign, LINEAR),
    "clipped": (ovsw.nn.clipped_ste_sign, CLIPPED),
    "approx": (ovsw.nn.approx_sign, QUADRATIC),
    "swish": (ovsw.nn.swish_sign, surrogate(sign_swish)),
    "tanh": (partial(ovsw.nn.tanh_sign, sharpness=2), surrogate(lambda x: jnp.tanh(2 * x))),
    "magnitude-aware": (
        ovsw.nn.magnitude_aware_sign,
        lambda w: lax.stop_gradient(jnp.abs(w).mean(0)) * CLIPPED(w),
    ),
    "standardised": (ovsw.nn.standardized_sign, lambda w: LINEAR(standardized(w))),
    "learned threshold": (ovsw.nn.LearnedThresholdSign(2), QUADRATIC),
}


def along(f, direction):
    return lambda x: jax.jvp(f, (x,), (direction,))[1]


@pytest.mark.long
@pytest.mark.usefixtures("float64")
def test_signs_in_all_modes():
    # At 0, where the triangle has its kink, and well inside and outside every window.
    x = dict.fromkeys(SIGNS, jnp.array([[0.0, 0.3], [-0.4, 0.5], [1.2, -2.0]]))
    direction = jax.tree.map(lambda x: x + 0.7, x)

    def loss(x, of):
        return sum(jnp.sum(jnp.sin(SIGNS[n][of](x[n]) * x[n]) + x[n] ** 2) for n in SIGNS)

    @jax.jit
    def derivatives(x):
        ours, expected = partial(loss, of=0), partial(loss, of=1)
        reverse = jax.grad(lambda x: optax.tree.vdot(jax.grad(ours)(x), direction))
        second = {
            "reverse over reverse": reverse(x),
            "forward over reverse": along(jax.grad(ours), direction)(x),
            "reverse over forward": jax.grad(along(ours, direction))(x),
        }
        twice = along(along(ours, direction), direction)(x)
        right = along(jax.grad(expected), direction)
        return second, twice, along(reverse, direction)(x), right(x), along(right, direction)(x)

    second, twice, third, right, right_third = derivatives(x)
    for values in second.values():
        chex.assert_trees_all_close(values, right, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(twice, optax.tree.vdot(right, direction), rtol=1e-9)
    chex.assert_trees_all_close(third, right_third, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("again", [jax.grad, jax.jacfwd])
def test_hardtanh_has_curvature_inside(again):
    curvature = again(jax.grad(lambda x: ovsw.models.hardtanh(x) ** 3))
    assert [curvature(x).item() for x in (-2.0, -1.0, 0.5, 1.0)] == [0, 0, 3, 0]


def test_the_sharpness_has_no_derivative_of_any_order():
    def loss(x, sharpness):
        return ovsw.nn.tanh_sign(x, sharpness) ** 2

    mixed = jax.jit(jax.hessian(loss, (0, 1)))(0.3, 2.0)
    assert mixed[0][0] != 0
    assert mixed[0][1] == mixed[1][0] == mixed[1][1] == 0


def dense_of_nnx(**signs):
    graph, params = nnx.split(ovsw.nn.BinaryDense(3, 2, **signs, rngs=nnx.Rngs(0)))
    return lambda params, x: nnx.merge(graph, params)(x), params


def dense_of_linen(**signs):
    layer = ovsw.linen.BinaryDense(2, **signs)
    params = layer.init(jax.random.key(0), jnp.ones((1, 3)), train=True)
    return lambda params, x: layer.apply(params, x, train=True), params


@pytest.mark.parametrize("dense", [dense_of_nnx, dense_of_linen])
def test_curvature_reaches_latent_weights(dense):
    """As Sophia asks for it, by Hutchinson's estimator; and the inputs."""
    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 3)), jnp.float32)
    estimator = optax.contrib.hutchinson_estimator_diag_hessian(jax.random.key(1))

    def diagonal(input_sign, kernel_sign):
        apply, params = dense(input_sign=input_sign, kernel_sign=kernel_sign)
        variables = (jax.tree.leaves(params), x)

        def loss(variables):
            leaves, x = variables
            return jnp.sum(apply(jax.tree.unflatten(jax.tree.structure(params), leaves), x) ** 4)

        def estimate(variables):
            return estimator.update(None, estimator.init(None), variables, obj_fn=loss)[0]

        return jax.jit(estimate)(variables)

    ours = diagonal(ovsw.nn.approx_sign, ovsw.nn.ste_sign)
    assert all(jnp.any(leaf != 0) for leaf in jax.tree.leaves(ours))
    chex.assert_trees_all_close(ours, diagonal(QUADRATIC, LINEAR), rtol=1e-4, atol=1e-4)


def network(input_sign, kernel_sign, norm):
    """Two convolutions of signs: a loss and its parameters."""
    signs = {"input_sign": input_sign, "kernel_sign": kernel_sign}

    def conv(features):
        return ovsw.nn.BinaryConv(features, 2, (2,), **signs, rngs=nnx.Rngs(0))

    graph, params, rest = nnx.split(nnx.Sequential(conv(3), norm, conv(2)), nnx.Param, ...)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 5, 3)), jnp.float32)

    def loss(params):
        return jnp.sum(jnp.sin(nnx.merge(graph, params, rest, copy=True)(x)))

    return loss, nnx.to_pure_dict(params)


def own(sign):
    """A sign of the user's: the layers multiply."""
    return lambda x: sign(x)


def test_convolutions_that_multiply_have_curvature():
    def along_itself(*arguments):
        loss, params = network(*arguments)
        return jax.jit(lambda p: jax.jvp(jax.grad(loss), (p,), (p,))[1])(params)

    ours = along_itself(
        own(ovsw.nn.approx_sign), own(ovsw.nn.ste_sign), BatchNorm(2, rngs=nnx.Rngs(0))
    )
    norm = nnx.BatchNorm(2, momentum=0.9, epsilon=1e-5, rngs=nnx.Rngs(0))
    assert all(jnp.any(leaf != 0) for leaf in jax.tree.leaves(ours))
    chex.assert_trees_all_close(ours, along_itself(QUADRATIC, LINEAR, norm), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("again", [jax.grad, jax.jacfwd])
def test_convolutions_that_count_say_that_they_have_none(again):
    loss, params = network(ovsw.nn.approx_sign, ovsw.nn.ste_sign, lambda x: x)
    once = jax.jit(jax.grad(loss))

    def twice(params):
        return again(lambda p: optax.tree.norm(once(p)))(params)

    with pytest.raises(NotImplementedError, match=r"kernel_sign=lambda w: ovsw.nn.ste_sign\(w\)"):
        jax.eval_shape(twice, params)


def test_narrow_convolutions_that_multiply_in_forward_mode():
    options = {"kernel_sign": own(ovsw.nn.ste_sign), "scale": None, "dtype": jnp.bfloat16}
    layer = ovsw.nn.BinaryConv(3, 2, (1,), **options, rngs=nnx.Rngs(0))
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 2, 3)), jnp.float32)

    @jax.jit
    def both(x):
        y, transpose = jax.vjp(layer, x)
        return jnp.vdot(y, jax.jvp(layer, (x,), (x,))[1]), jnp.vdot(transpose(y)[0], x)

    forward, reverse = both(x)
    assert reverse != 0
    np.testing.assert_allclose(float(forward), float(reverse), rtol=2**-7)
