"""Mistakes that once passed in silence, or ended in an error about something else."""

import functools

import jax
import jax.numpy as jnp
import optax
import pytest

import ovsw_jax as ovsw

PARAMS = {"latent_kernel": jnp.array([[2.0, 1.0], [-4.0, 0.5]]), "b": jnp.ones(2)}


@pytest.mark.parametrize("mask", ["latent_kernel", 3, {"latent_kernel": "yes", "b": ""}])
def test_a_mask_of_anything_but_bools(mask):
    with pytest.raises(TypeError, match=r"mask holds .*, which is no bool"):
        ovsw.ags(mask=mask).init(PARAMS)


@pytest.mark.parametrize("mask", [{"latent_kernel": True}, [True, False]])
def test_a_mask_of_another_structure(mask):
    with pytest.raises(ValueError, match="mask does not fit the params"):
        ovsw.sad(mask=mask).init(PARAMS)


@pytest.mark.parametrize(
    ("made", "used"), [("packed", "ema"), ("ema", "packed8"), ("packed8", "packed")]
)
def test_a_state_of_the_other_kind(made, used):
    state = ovsw.sad(state=made).init(PARAMS)
    with pytest.raises(ValueError, match=rf"flip state of .* not that of state='{used}'"):
        ovsw.sad(state=used).update(PARAMS, state, PARAMS)


def test_a_layer_tracked_twice():
    state = optax.chain(ovsw.track_flip_state(), ovsw.sad()).init(PARAMS)
    for read in (ovsw.flip_metrics, ovsw.silent_mask, ovsw.never_flipped_mask):
        with pytest.raises(ValueError, match="is ambiguous: the optimizer tracks that layer twice"):
            read(state)
    assert ovsw.flip_metrics(state[0])["total"]["silent_ratio"] == 1


@pytest.mark.parametrize("name", ["total", "a/b"])
def test_layers_of_one_name(name):
    kernel = {"latent_kernel": jnp.ones((2, 1))}
    params = {name: kernel, "a": {"b": kernel}}
    with pytest.raises(ValueError, match=rf"of '{name}' is ambiguous"):
        ovsw.flip_metrics(ovsw.sad().init(params))


SGD, LARS = functools.partial(ovsw.ovsw_sgd, 0.1), functools.partial(ovsw.lars_sgd, 0.1)
HYPERPARAMETERS = {
    ovsw.ags: ["lam"],
    ovsw.sad: ["tau", "momentum", "threshold"],
    ovsw.bop: ["threshold", "adaptivity"],
    ovsw.lars_sgd: ["learning_rate"],
    LARS: ["eta", "momentum", "weight_decay"],
    ovsw.ovsw_sgd: ["learning_rate"],
    SGD: ["momentum", "weight_decay", "lam", "tau", "threshold"],
    ovsw.clip_latent: ["limit"],
}


@pytest.mark.parametrize(
    ("make", "name"), [(make, name) for make, names in HYPERPARAMETERS.items() for name in names]
)
@pytest.mark.parametrize("size", [0, 3])
def test_arrays_that_would_change_the_shape_of_an_update(make, name, size):
    params = {"latent_kernel": jnp.ones((4, 1))}
    tx = make(**{name: jnp.full(size, 1e-4)})
    with pytest.raises(ValueError, match=rf"{name} has shape \({size},\), .* must broadcast"):
        jax.eval_shape(tx.update, params, tx.init(params), params)


@pytest.mark.parametrize("make", [ovsw.ovsw_sgd, ovsw.lars_sgd])
def test_a_learning_rate_for_each_filter_that_biases_cannot_take(make):
    """An array that fits the kernel, or comes out of a schedule, must fit the other params too."""
    params = {"latent_kernel": jnp.ones((4, 2)), "b": jnp.ones(3)}
    for rate in (jnp.ones(2), lambda _: jnp.ones(2)):
        tx = make(rate)
        message = r"learning_rate has shape \(2,\), weights of 'b' \(3,\)"
        with pytest.raises(ValueError, match=message):
            tx.update(params, tx.init(params), params)


@pytest.mark.parametrize("make", [ovsw.ovsw_sgd, ovsw.lars_sgd])
def test_decay_1d_that_is_no_bool(make):
    with pytest.raises(TypeError, match=r"decay_1d=1 is no bool: give True or False"):
        make(0.1, decay_1d=1)


def test_a_schedule_of_the_momentum_of_sgd():
    with pytest.raises(TypeError, match=r"momentum=<.*> of SGD is a function, .*inject_hyperpar"):
        ovsw.ovsw_sgd(0.1, momentum=lambda _: 0.9)


@pytest.mark.parametrize("axes", [0, "a", (0.5,)])
def test_axes_that_are_no_integers(axes):
    with pytest.raises(TypeError, match=r"axes=.* must be a sequence of integers"):
        ovsw.ags(axes=axes)


@pytest.mark.parametrize("gradient", [None, jnp.ones((2, 2), jnp.int32)])
def test_gradients_that_are_none_or_integers(gradient):
    tx = ovsw.sad()
    with pytest.raises(TypeError, match=r"gradient of .* (is None|has dtype int32)"):
        tx.update({"latent_kernel": gradient, "b": jnp.ones(2)}, tx.init(PARAMS), PARAMS)


def test_horizon_of_the_smallest_threshold():
    assert ovsw.silence_horizon(0.999, 5e-324) > 700_000
