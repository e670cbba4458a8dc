"""Masks of every form: pytrees, functions, and models of bools, which are both."""

import functools

import jax
import jax.numpy as jnp
import optax
import pytest
from flax import nnx
from public_transforms import TRANSFORMS

import ovsw_jax as ovsw


@pytest.fixture(params=TRANSFORMS)
def make(request):
    return TRANSFORMS[request.param]


@jax.tree_util.register_pytree_node_class
class Dense:
    """A model as Equinox has them: a pytree that is callable."""

    def __init__(self, weight, bias):
        self.weight, self.bias = weight, bias

    def __call__(self, x):
        return x @ self.weight + self.bias

    def tree_flatten(self):
        return (self.weight, self.bias), None

    @classmethod
    def tree_unflatten(cls, _, children):
        return cls(*children)


class Network(nnx.Module):
    def __init__(self):
        self.dense = ovsw.nn.BinaryDense(2, 3, use_bias=True, rngs=nnx.Rngs(0))

    def __call__(self, x):
        return self.dense(x)


def is_matrix(tree):
    return jax.tree.map(lambda x: x.ndim > 1, tree)


def program(tx, params):
    """What the transform does, without running it."""
    state = jax.eval_shape(tx.init, params)
    return str(jax.make_jaxpr(tx.update)(params, state, params))


def assert_masks_agree(make, mask, params):
    """The mask does what the function that made it does."""
    assert program(make(mask=mask), params) == program(make(mask=is_matrix), params)


def test_a_callable_model_of_bools(make):
    params = Dense(jnp.array([[1.0, -2.0]]), jnp.ones(2))
    assert_masks_agree(make, Dense(True, False), params)
    optax.masked(make(mask=True), Dense(True, False)).init(params)  # as Optax takes it


@pytest.mark.parametrize(
    "of", [lambda m: m, nnx.state, lambda m: nnx.split(m)[1]], ids=["module", "state", "split"]
)
def test_an_nnx_model_of_bools(of):
    params = of(Network())
    assert_masks_agree(ovsw.sad, is_matrix(params), params)


def test_a_model_of_anything_but_bools_is_named_rather_than_called():
    params = Dense(jnp.ones((1, 2)), jnp.ones(2))
    with pytest.raises(TypeError, match=r"mask holds 1, which is no bool"):
        ovsw.sad(mask=Dense(1, 0)).init(params)


def test_partial_functions_and_callable_objects_are_functions():
    params = {"a": jnp.ones((2, 1)), "b": jnp.ones(2)}

    class ByRank:
        def __call__(self, tree):
            return is_matrix(tree)

    def above(rank, tree):
        return jax.tree.map(lambda x: x.ndim > rank, tree)

    for partial in (functools.partial, jax.tree_util.Partial):
        assert_masks_agree(ovsw.sad, partial(above, 1), params)
    assert_masks_agree(ovsw.sad, ByRank(), params)


def test_an_nnx_mask_under_nnx_optimizer_names_the_remedy():
    network = Network()
    tx = ovsw.sad(mask=is_matrix(nnx.state(network)))
    with pytest.raises(ValueError, match=r"(?s)mask does not fit .*a function.*nnx\.Optimizer"):
        tx.init(nnx.as_pure(nnx.state(network)))


STATIC = r'optax\.inject_hyperparams\(\.\.\., static_args=\("mask",\)\)'


@pytest.mark.parametrize("mask", [ovsw.latent_mask, is_matrix, lambda p: jax.tree.map(jnp.any, p)])
def test_a_mask_that_inject_hyperparams_takes_for_a_schedule(make, mask):
    """Optax calls it with the update count, and gives what comes out."""
    params = {"latent_kernel": jnp.ones((2, 1)), "b": jnp.ones(2)}
    with pytest.raises((ValueError, TypeError), match=STATIC):
        optax.inject_hyperparams(make)(mask=mask).init(params)


def test_the_remedy_for_inject_hyperparams_works(make):
    params = {"latent_kernel": jnp.ones((2, 1)), "b": jnp.ones(2)}
    tx = optax.inject_hyperparams(make, static_args=("mask",))(mask=ovsw.latent_mask)
    state = jax.eval_shape(tx.init, params)
    assert jax.tree.structure(state.inner_state) == jax.tree.structure(make().init(params))
    jax.eval_shape(tx.update, params, state, params)
