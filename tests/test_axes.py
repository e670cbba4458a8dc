"""How transforms take axes: one tuple for all kernels, a tree of them, or a function."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import oracle
import pytest
from flax import nnx
from test_filter_axes import LAM, only

import ovsw_jax as ovsw

WEIGHTS = {
    "a": {"latent_kernel": jnp.arange(1.0, 25.0).reshape(2, 3, 4), "bias": jnp.ones(4)},
    "b": [{"latent_kernel": jnp.arange(1.0, 7.0).reshape(3, 2)}],
}
GRADIENTS = jax.tree.map(lambda w: 1e-3 * w[..., ::-1], WEIGHTS)
AXES = {"a": {"latent_kernel": (1,)}, "b": [{"latent_kernel": [-1]}]}


def scaled_by_oracle():
    def scale(gradient, weight):
        return oracle.ags(gradient, weight, LAM, (1,)).gradient if weight.ndim > 1 else gradient

    return jax.tree.map(scale, GRADIENTS, WEIGHTS)


WAYS = {
    "a tree": lambda: ovsw.ags(LAM, axes=AXES),
    "upper levels": lambda: ovsw.ags(LAM, axes={"a": (1,), "b": (1,)}),
    "other containers": lambda: ovsw.ags(
        LAM, axes={"a": nnx.State({"latent_kernel": (1,)}), "b": {"0": (1,)}}
    ),
    "one for all": lambda: ovsw.ags(LAM, axes=[np.int64(1)]),
    "a function": lambda: ovsw.ags(LAM, axes=lambda params: {"a": (1,), "b": (1,)}),
    "more than is latent": lambda: ovsw.ags(
        LAM, axes={"a": {"latent_kernel": (1,), "bias": ()}, "b": (1,)}
    ),
    "inject_hyperparams": lambda: optax.inject_hyperparams(ovsw.ags)(LAM, axes=AXES),
    "an injected function": lambda: optax.inject_hyperparams(ovsw.ags, static_args=("axes",))(
        LAM, axes=lambda params: AXES
    ),
    "masked": lambda: optax.chain(
        optax.masked(ovsw.ags(LAM, axes=AXES), {"a": True, "b": False}),
        optax.masked(ovsw.ags(LAM, axes=AXES), {"a": False, "b": True}),
    ),
    "partition": lambda: optax.partition(
        {"first": ovsw.ags(LAM, axes=AXES), "second": ovsw.ags(LAM, axes=AXES)},
        {"a": "first", "b": "second"},
    ),
    "MultiSteps": lambda: optax.MultiSteps(ovsw.ags(LAM, axes=AXES), 1),
}


@pytest.mark.parametrize("name", WAYS)
def test_ways_to_give_axes(name):
    tx = WAYS[name]()
    scaled, _ = tx.update(GRADIENTS, tx.init(WEIGHTS), WEIGHTS)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5), scaled, scaled_by_oracle()
    )


def test_an_optimizer_of_nnx_which_strips_variables_and_modules():
    model = nnx.Dict(blocks=nnx.List([only((7, 3, 2))]), last=only((3, 2)))
    model.blocks[0].kernel_shape, model.blocks[0].filter_axes = (3, 2), (0,)
    rng = np.random.default_rng(0)
    before = [rng.standard_normal(shape).astype(np.float32) for shape in ((7, 3, 2), (3, 2))]
    model.blocks[0].latent_kernel[...], model.last.latent_kernel[...] = before
    optimizer = nnx.Optimizer(model, ovsw.ags(LAM, axes=ovsw.filter_axes(model)), wrt=nnx.Param)
    optimizer.update(model, jax.tree.map(lambda x: 1e-3 * x, nnx.state(model, nnx.Param)))
    after = model.blocks[0].latent_kernel[...], model.last.latent_kernel[...]
    for w, new, axes in zip(before, after, ((1,), (0,)), strict=True):
        np.testing.assert_allclose(new, w + oracle.ags(1e-3 * w, w, LAM, axes).gradient, rtol=1e-5)


WRONG = {
    r"axes has no entry for the latent weights of 'b/0' with shape \(3, 2\), at 'b/0/latent_kernel'"
    r"; it has entries at 'a/latent_kernel'\. Give every latent kernel its own, as ovsw\.filter_": {
        "a": {"latent_kernel": (1,)}
    },
    r"no entry for .* 'a' .*entries at none": {},
    r"axes has an entry \(1,\) at 'c', where there are no params; they are at 'a/bias', 'a/lat": {
        **{"a": (1,), "b": (1,), "c": (1,)}
    },
    r"axes=\(2,\) do not fit the latent weights of 'b/0' with shape \(3, 2\): axis 2 does not": {
        **{"a": (2,), "b": (2,)}
    },
    r"axes=\(1, -2\) do not fit .* 'a' with shape \(2, 3, 4\): an axis is named twice\. Give": (
        1,
        -2,
    ),
    r"axes=\(\) do not fit .* 'a' .*: a filter has at least one axis": (),
}


@pytest.mark.parametrize("message", WRONG)
@pytest.mark.parametrize("make", [ovsw.ags, ovsw.ovsw_sgd, ovsw.lars_sgd])
def test_axes_that_do_not_fit(make, message):
    with pytest.raises(ValueError, match=message):
        make(0.1, axes=WRONG[message]).init(WEIGHTS)


@pytest.mark.parametrize("axes", [{"a": 1}, {"a": (0, "b")}, {"a": (True,)}, {"a": np.arange(2)}])
@pytest.mark.parametrize("make", [ovsw.ags, ovsw.ovsw_sgd, ovsw.lars_sgd])
def test_trees_of_other_things(make, axes):
    with pytest.raises(
        TypeError, match=r"must be a sequence of integers.*; it holds .*static_args"
    ):
        make(0.1, axes=axes)


def test_kernels_whose_number_of_axes_tells_nothing_are_warned_of_once():
    """A 1-D convolution of version 0.1 trains on, and a stack is not silent."""
    params = {
        "a": {"latent_kernel": jnp.ones((3, 4, 5))},
        "b": {"latent_kernel": jnp.ones((2, 3, 3, 4, 5))},
        "c": {"latent_kernel": jnp.ones((3, 3, 4, 5))},
    }
    message = (
        r"filter of the latent weights of 'a' \(3, 4, 5\), 'b' \(2, 3, 3, 4, 5\)\. That is right "
        r"for conv.*axes=ovsw\.filter_axes\(model\)"
    )
    with pytest.warns(UserWarning, match=message) as warned:
        state = jax.eval_shape(ovsw.ags().init, params)
    assert len(warned) == 1
    # A warning in one of these would be an error.
    jax.eval_shape(ovsw.ags().update, params, state, params)
    jax.eval_shape(ovsw.ags(axes=(0,)).init, params)
    known = {"c": params["c"], "d": {"latent_kernel": jnp.ones((2, 3))}}
    jax.eval_shape(ovsw.ags().init, known)


# ---- one rate for each layer


@pytest.mark.parametrize("stacked", [(1,), (0, 2)])
def test_lars_gives_each_layer_of_a_stack_its_own_rate(stacked):
    sizes = (3, 2)[: len(stacked)]
    rng = np.random.default_rng(0)
    # Layers differ in size, so that a common norm is another one.
    scale = 10.0 ** np.arange(np.prod(sizes)).reshape(*sizes, 1, 1)
    weights, gradients = (
        np.float32(rng.normal(size=(*sizes, 4, 5)) * size) for size in (scale, 1.0)
    )

    def stack_of(layers):
        return {"latent_kernel": np.moveaxis(layers, range(len(sizes)), stacked)}

    own = tuple(i for i in range(2 + len(sizes)) if i not in stacked)
    tx = ovsw.lars_sgd(0.5, axes={"latent_kernel": own})
    params = stack_of(weights)
    moved, state = jax.jit(tx.update)(stack_of(gradients), tx.init(params), params)
    moved, rates = (
        np.moveaxis(tree["latent_kernel"], stacked, range(len(sizes)))
        for tree in (moved, state.local_rate)
    )
    for layer in np.ndindex(*sizes):
        alone = oracle.Algorithm2(weights[layer], 0.02, 0.9, 5e-4)
        np.testing.assert_allclose(rates[layer], alone.step(gradients[layer], 0.5), rtol=1e-5)
        expected = alone.weight - weights[layer]
        np.testing.assert_allclose(moved[layer], expected, rtol=1e-5, atol=1e-6)


def test_the_state_of_lars_is_the_same_where_nothing_is_stacked():
    params = {"latent_kernel": jnp.ones((4, 5))}
    told, untold = (jax.eval_shape(ovsw.lars_sgd(1.0, axes=a).init, params) for a in ((0, 1), None))
    assert told == untold
