"""clip_latent: weights end within the limit exactly, whatever the dtypes and sizes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ovsw_jax as ovsw

DTYPES = [jnp.float32, jnp.bfloat16, jnp.float16]
LIMITS = [1.0, 0.1, 1e-5]


def tree(x):
    return {"latent_kernel": x}


def stepped(tx, weights, updates):
    """The weights after one step, and what `tx` made of the updates."""
    params = tree(weights)
    changed, _ = tx.update(tree(updates), tx.init(params), params)
    return optax.apply_updates(params, changed)["latent_kernel"], changed["latent_kernel"]


def exact(x):
    return np.asarray(x, np.float64)


@functools.cache
def compiled(limit):
    # A learning rate before it, which XLA might fuse with the sum.
    tx = optax.chain(optax.scale(-0.37), ovsw.clip_latent(limit))
    return jax.jit(functools.partial(stepped, tx))


@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_weights_end_within_the_limit(dtype, limit):
    rng = np.random.default_rng(0)
    sign, size = rng.choice([-1, 1], (2, 4000)), rng.uniform(-12, 12, (2, 4000))
    near = rng.standard_normal((2, 4000)) * limit
    values = np.concatenate([sign * 10.0**size, near], axis=1).clip(-6e4, 6e4)
    for of_updates in DTYPES:
        weights, updates = jnp.asarray(values[0], dtype), jnp.asarray(values[1], of_updates)
        after, _ = compiled(limit)(weights, updates)
        assert after.dtype == dtype
        assert np.all(np.abs(exact(after)) <= limit)


@settings(max_examples=25)
@given(data=st.data())
def test_it_is_the_clip_of_the_sum(data):
    """Weights inside end where the clipped sum is, to a rounding; updates inside pass as are."""
    numbers = st.floats(-3, 3, width=32, allow_subnormal=False)
    weights, updates = (
        np.array(data.draw(st.lists(numbers, min_size=8, max_size=8)), np.float32) for _ in "WU"
    )
    after, changed = stepped(ovsw.clip_latent(1.0), jnp.asarray(weights), jnp.asarray(updates))
    total = exact(weights) + exact(updates)
    np.testing.assert_allclose(exact(after), np.clip(total, -1, 1), rtol=0, atol=5e-7)
    inside = np.abs(total) <= 1
    np.testing.assert_array_equal(np.asarray(changed)[inside], updates[inside])


def test_the_limit_that_no_number_of_the_dtype_is_equal_to():
    """0.1 is 0.100098 in bfloat16: the bound is the number below."""
    below = {jnp.bfloat16: 0.099609375, jnp.float32: np.nextafter(np.float32(0.1), np.float32(0))}
    for dtype, bound in below.items():
        after, _ = stepped(ovsw.clip_latent(0.1), jnp.zeros(1, dtype), jnp.ones(1, dtype))
        assert exact(after) == bound


def test_values_that_are_not_finite():
    weights = jnp.array([np.nan, 0.5, 0.5, np.inf, 3e38, -3e38])
    updates = jnp.array([0.1, np.nan, np.inf, 0.0, -1.0, np.inf])
    after, _ = stepped(ovsw.clip_latent(1.0), weights, updates)
    # No float brings 3e38 to 1: the nearest that is not outside is 0.
    np.testing.assert_array_equal(after, [np.nan, np.nan, 1.0, np.inf, 0.0, 0.0])


def test_a_schedule_and_its_state():
    tx = ovsw.clip_latent(lambda count: 1.0 / (count + 1))
    params, state = tree(jnp.array([[5.0]])), tx.init(tree(jnp.array([[5.0]])))
    for limit in (1.0, 0.5):
        updates, state = tx.update(tree(jnp.array([[3.0]])), state, params)
        params = optax.apply_updates(params, updates)
        assert params["latent_kernel"].item() == limit
    assert state == optax.ScaleByScheduleState(2)
    assert jax.tree.leaves(ovsw.clip_latent(1.0).init(params)) == []


def test_a_limit_for_each_filter():
    after, _ = stepped(
        ovsw.clip_latent(jnp.array([1.0, 2.0])), jnp.zeros((1, 2)), jnp.full((1, 2), 5.0)
    )
    np.testing.assert_array_equal(after, [[1.0, 2.0]])


@pytest.mark.parametrize(("made", "used"), [(1.0, lambda _: 1.0), (lambda _: 1.0, 1.0)])
def test_a_state_of_a_number_for_a_schedule(made, used):
    state = ovsw.clip_latent(made).init(tree(jnp.ones(1)))
    with pytest.raises(TypeError, match=r"state is of type \w+State, not \w+State"):
        ovsw.clip_latent(used).update(tree(jnp.ones(1)), state, tree(jnp.ones(1)))
