"""A sharpness that grows in training: compiled once, seen by every layer, no parameter."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import ovsw_jax as ovsw
from ovsw_jax.nn.sign_kinds import is_two_valued

X = jnp.asarray(np.random.default_rng(0).normal(size=(4, 3)), jnp.float32)
VALUES = (0.1, 1.0, 10.0)


def slope(t):
    """The pseudo-gradient of IR-Net at X."""
    return max(1 / t, 1) * t * (1 - np.tanh(t * np.asarray(X, np.float64)) ** 2)


def test_nnx_compiles_once_and_reaches_all_layers():
    sharp = ovsw.nn.SharpeningSign(VALUES[0])
    options = {"input_sign": sharp, "kernel_sign": sharp, "scale": None, "normalize_input": False}
    rngs = nnx.Rngs(0)
    model = nnx.List([ovsw.nn.BinaryDense(3, 2, **options, rngs=rngs) for _ in range(2)])

    def total(model, x):
        return sum(layer(x).sum() for layer in model)

    gradients = nnx.jit(chex.assert_max_traces(nnx.grad(total, argnums=(0, 1)), n=1))

    signs = sum(ovsw.nn.sign(layer.latent_kernel[...]).sum(1) for layer in model)
    for t in VALUES:
        sharp.sharpness[...] = t
        of_model, of_x = gradients(model, X)
        np.testing.assert_allclose(of_x, slope(t) * np.asarray(signs), rtol=1e-4, atol=1e-6)
        weights = np.asarray(model[0].latent_kernel[...], np.float64)
        of_kernel = ovsw.nn.sign(X).sum(0)[:, None] * max(1 / t, 1) * t
        of_kernel = of_kernel * (1 - np.tanh(t * weights) ** 2)
        np.testing.assert_allclose(of_model[0]["latent_kernel"][...], of_kernel, rtol=1e-4)


def test_linen_compiles_once():
    dense = ovsw.linen.BinaryDense(
        2, input_sign=ovsw.linen.SharpeningSign(0.5), scale=None, normalize_input=False, train=True
    )
    variables = dense.init(jax.random.key(0), X)
    assert variables["sharpness"]["input_sign"]["sharpness"] == 0.5
    signs = np.asarray(ovsw.nn.sign(variables["params"]["latent_kernel"]).sum(1))

    @jax.jit
    @chex.assert_max_traces(1)
    def gradient(variables, x):
        return jax.grad(lambda x: dense.apply(variables, x).sum())(x)

    for t in VALUES:
        sharpness = jax.tree.map(lambda s, t=t: jnp.full_like(s, t), variables["sharpness"])
        of_x = gradient({**variables, "sharpness": sharpness}, X)
        np.testing.assert_allclose(of_x, slope(t) * signs, rtol=1e-4, atol=1e-6)


def test_optimizers_leave_it_alone():
    layer = ovsw.nn.BinaryDense(3, 2, input_sign=ovsw.nn.SharpeningSign(2.0), rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(layer, optax.sgd(0.1, momentum=0.9), wrt=nnx.Param)
    optimizer.update(layer, nnx.grad(lambda layer: layer(X).sum())(layer))
    assert layer.input_sign.sharpness[...] == 2
    assert len(jax.tree.leaves(nnx.state(layer, nnx.Param))) == 1


def test_layers_count_bits_unless_the_sign_is_of_the_users():
    for module in (ovsw.nn, ovsw.linen):
        assert is_two_valued(module.SharpeningSign())
        assert is_two_valued(module.SharpeningSign(sign=ovsw.nn.swish_sign))
        assert not is_two_valued(module.SharpeningSign(sign=lambda x, t: jnp.sign(x)))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"sharpness": 0.0}, ValueError, "sharpness=0 must be above 0 and finite"),
        ({"sharpness": float("nan")}, ValueError, "sharpness=nan must be above 0"),
        ({"sharpness": "1"}, TypeError, "sharpness='1'"),
        ({"sign": 3}, TypeError, "sign=3 is no function of x and the sharpness: .*tanh_sign"),
        ({"sign": ovsw.nn.approx_sign}, TypeError, "sign=.*approx_sign.* is no function of x and"),
    ],
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        ovsw.nn.SharpeningSign(**arguments)
    with pytest.raises(error, match=message):
        ovsw.linen.SharpeningSign(**arguments).init(jax.random.key(0), X)


MADE = r"ovsw\.nn\.SharpeningSign"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kernel_sign": ovsw.nn.SharpeningSign}, "SharpeningSign is a class: make an object"),
        ({"kernel_sign": ovsw.linen.SharpeningSign()}, rf"of Flax linen, not NNX.*{MADE}"),
        (
            {"input_sign": ovsw.linen.SharpeningSign()},
            rf"of Flax linen, not NNX.* own kind, {MADE}",
        ),
        ({"input_sign": ovsw.nn.SharpeningSign}, f"is a class: make an object of it, as in {MADE}"),
        (
            {"input_sign": partial(ovsw.nn.tanh_sign, sharpness=nnx.Variable(1.0))},
            "has a Variable inside a functools.partial.* ovsw.nn.SharpeningSign",
        ),
        (
            {"kernel_sign": partial(ovsw.nn.standardized_sign, sign=ovsw.nn.SharpeningSign())},
            "has a SharpeningSign inside a functools.partial",
        ),
    ],
)
def test_what_flax_would_not_see(arguments, message):
    with pytest.raises(ValueError, match=message):
        ovsw.nn.BinaryDense(3, 2, **arguments, rngs=nnx.Rngs(0))


@pytest.mark.parametrize(
    ("sign", "message"),
    [
        (ovsw.nn.SharpeningSign(), "of Flax NNX, not linen"),
        (ovsw.linen.SharpeningSign, "is a class: make an object of it, as in"),
    ],
)
def test_a_linen_layer_asks_for_a_linen_one(sign, message):
    layer = ovsw.linen.BinaryDense(2, input_sign=sign)
    with pytest.raises(ValueError, match=rf"{message}.* ovsw\.linen\.SharpeningSign\("):
        layer.init(jax.random.key(0), X, train=True)


def test_a_number_assigned_is_set_in_the_variable():
    sharp = ovsw.nn.SharpeningSign(0.1)
    variable = sharp.sharpness
    for value in (5, 5.0, np.float64(5)):
        sharp.sharpness = value
        assert sharp.sharpness is variable
        assert variable[...] == 5
        assert variable[...].dtype == jnp.float32
        assert jax.grad(sharp)(0.0) == 5
    with pytest.raises(ValueError, match="sharpness=-1 must be above 0 and finite"):
        sharp.sharpness = -1.0
    assert variable[...] == 5


def test_a_sign_must_keep_the_shape():
    message = r"gave shape \(\) for x of shape \(4, 3\): it must give a sign for each element"
    for module in (ovsw.nn, ovsw.linen):
        sign = module.SharpeningSign(sign=lambda x, t: ovsw.nn.tanh_sign(x.sum(), t))
        call = sign if module is ovsw.nn else partial(sign.init, jax.random.key(0))
        with pytest.raises(ValueError, match=message):
            call(X)
