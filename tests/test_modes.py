"""Training and evaluation: switched as Flax's own layers are, in NNX and in linen."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

import ovsw_jax as ovsw
from ovsw_jax.nn import BatchNorm

X = 3 * jnp.asarray(np.random.default_rng(0).normal(size=(2, 3)), jnp.float32)
KEY = jax.random.key(0)
Dense = ovsw.linen.BinaryDense


def network():
    rngs = nnx.Rngs(0)
    layers = ovsw.nn.BinaryDense(3, 2, rngs=rngs), nnx.Dropout(0.5, rngs=rngs)
    return nnx.Sequential(*layers, BatchNorm(2, rngs=rngs))


def modes(model):
    dense, dropout, norm = model.layers
    return dense.deterministic, dropout.deterministic, norm.use_running_average


def test_a_view_switches_what_flax_would():
    model = network()
    assert modes(nnx.view(model, deterministic=True)) == (True, True, False)
    assert modes(nnx.view(model, use_running_average=True)) == (False, False, True)
    view = nnx.view(model, deterministic=True, use_running_average=True)
    assert modes(view) == (True, True, True)
    assert modes(nnx.view(view, deterministic=False)) == (False, False, True)
    assert modes(model) == (False, False, False)
    assert view.layers[0].latent_kernel is model.layers[0].latent_kernel
    attributes = nnx.with_attributes(model, deterministic=True, use_running_average=True)
    assert modes(attributes) == (True, True, True)
    expected = view(X)
    model.eval()
    assert modes(model) == (True, True, True)
    chex.assert_trees_all_equal(model(X), expected)
    assert modes(nnx.view(model, deterministic=False)) == (False, False, True)
    model.train()
    assert modes(model) == (False, False, False)


@pytest.mark.parametrize("kind", [ovsw.nn.BinaryDense, ovsw.nn.BinaryConv])
def test_a_view_of_binary_layers_alone(kind):
    size = ((1,),) if kind is ovsw.nn.BinaryConv else ()
    layer = kind(3, 2, *size, rngs=nnx.Rngs(0))
    assert nnx.view(layer, deterministic=True).deterministic
    assert "deterministic: bool | None = None\n    whether to evaluate" in nnx.view_info(layer)
    with pytest.raises(ValueError, match=r"Unused keys found in nnx.view: \['train'\]"):
        nnx.view(layer, train=False)


def slope(layer, variables, *arguments, **named):
    """The gradient of the input, in which training shows."""
    return jax.grad(lambda x: layer.apply(variables, x, *arguments, **named).sum())(X)


@pytest.mark.parametrize("train", [True, False])
def test_linen_takes_the_mode_in_each_place(train):
    variables = Dense(2).init(KEY, X, train=train)
    expected = slope(Dense(2), variables, train=train)
    assert not np.array_equal(expected, slope(Dense(2), variables, train=not train))
    for layer, arguments in [
        (Dense(2), (train,)),
        (Dense(2, train=train), ()),
        (linen.remat(Dense)(2, train=train), ()),
        (linen.remat(Dense, static_argnums=2)(2), (train,)),
    ]:
        chex.assert_trees_all_close(slope(layer, variables, *arguments), expected, rtol=1e-6)


class Block(linen.Module):
    @linen.compact
    def __call__(self, x, train):
        return Dense(3)(x, train), None


each = {"variable_axes": {"params": 0}, "split_rngs": {"params": True}}
CONTAINERS = {
    "members": (linen.vmap(Dense, in_axes=0, **each)(3, train=True), ()),
    "members, by position": (linen.vmap(Dense, in_axes=(0, None), **each)(3), (True,)),
    "scanned": (linen.scan(Block, length=2, in_axes=linen.broadcast, **each)(), (True,)),
    "sequence": (
        linen.Sequential([Dense(3, train=True), ovsw.linen.RPReLU(), Dense(3, train=False)]),
        (),
    ),
}


@pytest.mark.parametrize("name", CONTAINERS)
def test_linen_layers_in_containers(name):
    container, arguments = CONTAINERS[name]

    def run(x):
        return container.init_with_output(KEY, x, *arguments)

    y, variables = jax.eval_shape(run, X)
    assert jax.tree.leaves(y)[0].shape == X.shape
    mask = jax.tree.leaves(ovsw.latent_mask(variables))
    kernels = [
        leaf for leaf, latent in zip(jax.tree.leaves(variables), mask, strict=True) if latent
    ]
    assert sum(kernel.size for kernel in kernels) == 2 * 3 * 3


def test_linen_wants_the_mode_once_and_known():
    with pytest.raises(ValueError, match='"train" must be passed'):
        Dense(2).init(KEY, X)
    with pytest.raises(ValueError, match='"train" was passed to the constructor and at call'):
        Dense(2, train=False).init(KEY, X, train=False)
    with pytest.raises(TypeError, match=r"BinaryDense\(..., train=True\), or .* static_argnums=2"):
        linen.remat(Dense)(2).init(KEY, X, train=True)
    with pytest.raises(TypeError, match=r"train='False' is no bool"):
        Dense(2).init(KEY, X, train="False")
