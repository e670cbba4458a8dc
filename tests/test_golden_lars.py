"""50 steps of Algorithm 2 in NumPy float64 (lars.npz), both readings of line 7."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import oracle
import pytest

import ovsw_jax as ovsw
from tests import golden

pytestmark = pytest.mark.usefixtures("strict_promotion", "float64")

LAYERS = ("conv3x3", "conv1x1", "tiny")
SETTINGS = ("p0", "p1", "p2")
VARIANTS = ("updated", "literal")
everything = pytest.mark.parametrize(
    ("layer", "setting", "variant"),
    [(layer, setting, v) for layer in LAYERS for setting in SETTINGS for v in VARIANTS],
)


@pytest.fixture
def data():
    return golden.load("lars")


def gradients_of(data, layer, setting):
    gradients = data[f"{layer}/G"].copy()
    if setting == "p2":  # no decay: a zero gradient would make the rate infinite
        gradients[7] = gradients[6]
    return gradients


def assert_as_recorded(data, prefix, weights, velocities, rates):
    at = data["rec_steps"]
    for name, series in (
        ("W_at_rec_steps", weights[at]),
        ("V_at_rec_steps", velocities[at]),
        ("lambda", rates),
    ):
        np.testing.assert_allclose(series, data[f"{prefix}/{name}"], rtol=1e-10, err_msg=name)


def test_no_reference_case_is_left_out(data):
    assert sorted(data["layers"]) == sorted(LAYERS)
    assert sorted(k for k in data if k.startswith("params/")) == [f"params/{p}" for p in SETTINGS]
    assert all(not data[f"{layer}/G"][7].any() for layer in LAYERS)


@everything
def test_lars_sgd_follows_algorithm_2(data, layer, setting, variant):
    momentum, weight_decay, eta = data[f"params/{setting}"]
    beta = jnp.asarray(data["beta"])
    tx = ovsw.lars_sgd(
        lambda count: beta[count],
        eta=eta,
        momentum=momentum,
        weight_decay=weight_decay,
        variant=variant,
    )
    params = {"latent_kernel": jnp.asarray(data[f"{layer}/W0"])}

    def step(carry, gradient):
        params, state = carry
        updates, state = tx.update({"latent_kernel": gradient}, state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), (params, state.velocity, state.local_rate)

    gradients = jnp.asarray(gradients_of(data, layer, setting))
    _, seen = jax.jit(lambda p: jax.lax.scan(step, (p, tx.init(p)), gradients))(params)
    series = (tree["latent_kernel"] for tree in jax.device_get(seen))
    assert_as_recorded(data, f"{layer}/{setting}/{variant}", *series)


@everything
def test_oracle_follows_algorithm_2(data, layer, setting, variant):
    momentum, weight_decay, eta = data[f"params/{setting}"]
    algorithm = oracle.Algorithm2(
        data[f"{layer}/W0"], eta, momentum, weight_decay, literal=variant == "literal"
    )
    seen = []
    for gradient, rate in zip(gradients_of(data, layer, setting), data["beta"], strict=True):
        local = algorithm.step(gradient, rate)
        seen.append((algorithm.weight, algorithm.velocity, local))
    series = (np.stack(one) for one in zip(*seen, strict=True))
    assert_as_recorded(data, f"{layer}/{setting}/{variant}", *series)
