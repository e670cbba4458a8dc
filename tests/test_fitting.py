"""States and gradients that don't fit the params: each error says what, and what to do."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from public_transforms import TRANSFORMS

import ovsw_jax as ovsw

PARAMS = {"a": jnp.array([[1.0, -2.0]]), "b": jnp.ones((2, 1))}
WITH_STATE = sorted(TRANSFORMS.keys() - {"clip_latent"})
OF_ALL_PARAMS = ["lars_sgd", "ovsw_sgd"]


@pytest.fixture(params=WITH_STATE)
def make(request):
    return TRANSFORMS[request.param]


def update(tx, gradients, state, params):
    """Its shapes alone; what raises does so before anything runs."""
    return jax.eval_shape(tx.update, gradients, state, params)


def update_with(make, state, **arguments):
    return update(make(**arguments), PARAMS, state, PARAMS)


@pytest.mark.parametrize(
    ("made", "used", "difference"),
    [
        ({"a": True, "b": False}, {"a": True, "b": True}, "lacks 'b'"),
        ({"a": True, "b": True}, {"a": True, "b": False}, "has in excess 'b'"),
        ({"a": False, "b": True}, {"a": True, "b": False}, "lacks 'a'"),
    ],
)
def test_a_state_of_another_mask(make, made, used, difference):
    state = make(mask=made).init(PARAMS)
    with pytest.raises(ValueError, match=rf"\({difference}.*made with another mask.*initialise"):
        update_with(make, state, mask=used)


@pytest.mark.parametrize("params", [{"a": PARAMS["a"]}, {"a": PARAMS["a"], "c": PARAMS["b"]}])
def test_a_state_of_other_params(make, params):
    state = make(mask=True).init(params)
    with pytest.raises(ValueError, match=r"(?s)'b'.*optimizer state was"):
        update_with(make, state, mask=True)


CHANGES = {"dict": lambda s: s._asdict(), "tuple": tuple, "None": lambda _: None}


@pytest.mark.parametrize("change", CHANGES)
def test_a_state_of_another_type(make, change):
    state = make(mask=True).init(PARAMS)
    changed = CHANGES[change](state if hasattr(state, "_asdict") else state[0])
    with pytest.raises(TypeError, match=r"state is of type .*, not \w+State\. .*tx\.init"):
        update_with(make, changed, mask=True)


def test_a_state_of_another_transform(make):
    for other in (optax.adam(0.1).init(PARAMS), optax.EmptyState()):
        with pytest.raises(TypeError, match=r"the optimizer state is of type \w+, not \w+State"):
            update_with(make, other, mask=True)


def test_a_state_with_an_axis_of_vmap(make):
    stacked = jax.tree.map(lambda x: jnp.stack([x] * 3), PARAMS)
    state = jax.vmap(make(mask=True).init)(stacked)
    with pytest.raises(ValueError, match=r"leading axis of \(3,\), as vmap makes it"):
        update_with(make, state, mask=True)


@pytest.mark.parametrize("name", ["bop", "lars_sgd"])
def test_a_momentum_that_cannot_average_gradients(name):
    make = TRANSFORMS[name]
    state = jax.tree.map(lambda x: x.astype(jnp.int32), make(mask=True).init(PARAMS))
    with pytest.raises(ValueError, match=r"momentum of 'a' has dtype int32"):
        update_with(make, state, mask=True)


def test_a_checkpoint_of_lists():
    state = ovsw.sad(mask=True).init(PARAMS)
    state = state._replace(history=jax.tree.map(np.ndarray.tolist, jax.device_get(state.history)))
    with pytest.raises(TypeError, match=r"flip state of 'a' is a list, which is no array"):
        ovsw.sad(mask=True).update(PARAMS, state, PARAMS)


# ---- beside the latent weights

KERNEL = {"latent_kernel": jnp.array([[1.0, -2.0]])}
NOTHING = {"None": None, "float0": np.zeros((), jax.dtypes.float0)}


@pytest.mark.parametrize("nothing", NOTHING)
@pytest.mark.parametrize("name", sorted(TRANSFORMS))
def test_a_counter_beside_the_weights_has_no_gradient(name, nothing):
    """As filtered gradients and jax.grad(allow_int=True) have it; the state keeps its form."""
    tx = TRANSFORMS[name]()
    params = {**KERNEL, "steps": jnp.int32(3)}
    gradients = {**KERNEL, "steps": NOTHING[nothing]}
    state = tx.init(params)
    seen = []

    def step(state):
        updates, state = tx.update(gradients, state, params)
        seen.append(updates["steps"])
        return state

    assert jax.eval_shape(step, state) == jax.eval_shape(lambda s: s, state)
    assert seen == [NOTHING[nothing]]


def test_momentum_waits_while_there_is_no_gradient():
    tx = ovsw.ovsw_sgd(0.1)
    params = {**KERNEL, "b": jnp.ones(2)}

    def step(state):
        _, after = tx.update({**params, "b": None}, state, params)
        assert after[-1][0].trace["b"] is state[-1][0].trace["b"]
        return tx.update(params, after, params)  # resumes

    jax.eval_shape(step, tx.init(params))


@pytest.mark.parametrize("name", OF_ALL_PARAMS)
@pytest.mark.parametrize(
    ("gradient", "error", "text"),
    [
        (jnp.ones(1), ValueError, r"gradient of 'b' has shape \(1,\), its weights \(2,\)"),
        (jnp.ones(2, jnp.int32), TypeError, r"gradient of 'b' has dtype int32.*optax\.partition"),
    ],
)
def test_gradients_of_other_params_that_do_not_fit(name, gradient, error, text):
    """They were spread over the bias, and cut to integers, without a word."""
    tx, params = TRANSFORMS[name](), {**KERNEL, "b": jnp.ones(2)}
    with pytest.raises(error, match=text):
        update(tx, {**KERNEL, "b": gradient}, tx.init(params), params)


@pytest.mark.parametrize("name", OF_ALL_PARAMS)
def test_a_momentum_of_other_params_that_does_not_fit(name):
    tx, params = TRANSFORMS[name](), {**KERNEL, "b": jnp.ones(2)}
    state = tx.init({**KERNEL, "b": jnp.ones(1)})
    with pytest.raises(
        ValueError, match=r"weights of 'b' have shape \(2,\), their momentum \(1,\)"
    ):
        tx.update(params, state, params)


@pytest.mark.parametrize("name", sorted(TRANSFORMS))
@pytest.mark.parametrize("as_given", [np.float64, float])
def test_numbers_and_arrays_that_are_not_of_jax(name, as_given):
    """NumPy's float64 is float32 to JAX, without a warning; a Python float is an array too."""
    tx, params = TRANSFORMS[name](), jax.tree.map(as_given, {"latent_kernel": 0.5, "b": 0.25})

    # As constants, since what jit is given is an array of JAX.
    updates, _ = jax.eval_shape(lambda s: tx.update(params, s, params), tx.init(params))
    assert all(u.dtype == jnp.float32 for u in jax.tree.leaves(updates))
