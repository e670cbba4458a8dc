"""Networks whose first stages are computed again in the backward pass."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import ovsw_jax as ovsw
from benchmarks.jax_step import residual_bytes


def make(stages):
    model = ovsw.models.SmallResNet(3, rngs=nnx.Rngs(0))
    model.remat_stages = stages
    return model


def loss_of(model):
    graph, *states = nnx.split(model, nnx.Param, ...)
    params, rest = map(nnx.to_pure_dict, states)

    def loss(params, x):
        model = nnx.merge(graph, params, rest)
        value = jnp.sum(jnp.sin(model(x)))
        return value, nnx.to_pure_dict(nnx.state(model, nnx.BatchStat))

    return loss, params


@pytest.mark.parametrize("name", ["cpu", "gpu", "tpu"])
def test_nothing_changes_but_what_is_kept(name):
    x = jax.random.normal(jax.random.key(0), (4, 16, 16, 3))
    results, kept = [], []
    for stages in (0, 1, 2):
        loss, params = loss_of(make(stages))
        with ovsw.nn.compute_for(name):
            results.append(jax.jit(jax.value_and_grad(loss, has_aux=True))(params, x))
            kept.append(residual_bytes(loss, params, x))
    chex.assert_trees_all_close(results[1], results[0], rtol=1e-4, atol=1e-5)
    chex.assert_trees_all_close(results[2], results[0], rtol=1e-4, atol=1e-5)
    assert kept[2] < kept[1] < kept[0]
    before = nnx.to_pure_dict(nnx.state(make(0), nnx.BatchStat))
    moved = [
        bool(np.any(a != b))
        for a, b in zip(jax.tree.leaves(results[1][0][1]), jax.tree.leaves(before), strict=True)
    ]
    assert all(moved)


def test_a_summary_is_the_same():
    images = (1, 16, 16, 3)
    assert str(ovsw.summary(make(1), images)) == str(ovsw.summary(make(0), images))


@pytest.mark.parametrize("bad", [-1, 3, 1.0, True, None])
def test_numbers_of_stages_that_are_none(bad):
    with pytest.raises(ValueError, match=r"remat_stages=.* an integer from 0 to 2"):
        make(bad)(jnp.ones((1, 16, 16, 3)))
