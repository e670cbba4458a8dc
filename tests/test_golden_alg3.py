"""200 steps of Algorithm 3 in NumPy float64 (alg3.npz), with sign(0) = +1."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import oracle
import pytest

import ovsw_jax as ovsw
from tests import golden

pytestmark = pytest.mark.usefixtures("strict_promotion", "float64")

VARIANT = "Vnew_Snew_sign0pos"


@pytest.fixture
def data():
    return golden.load("alg3")


def hyperparameters(data):
    return dict(zip(data["hparam_names"].tolist(), data["hparams"].tolist(), strict=True))


def expected(data, name):
    """A recorded series in HWIO order, or a per-step count as it is."""
    series = data[f"{VARIANT}/{name}"]
    return golden.to_hwio(series) if series.ndim == 5 else series


def run(tx, data, look):
    """Trains on the recorded gradients; `look(updates, state)` is stacked over the 200 steps."""
    params = {"latent_kernel": jnp.asarray(golden.to_hwio(data["W0"]))}

    def step(carry, gradient):
        params, state = carry
        updates, state = tx.update({"latent_kernel": gradient}, state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), (params["latent_kernel"], look(updates, state))

    gradients = jnp.asarray(golden.to_hwio(data["G"]))
    _, seen = jax.jit(lambda p: jax.lax.scan(step, (p, tx.init(p)), gradients))(params)
    return jax.device_get(seen)


def test_ovsw_sgd_follows_algorithm_3(data):
    h, at = hyperparameters(data), data["rec_steps"]
    rates = jnp.asarray(data["beta"])
    tx = ovsw.ovsw_sgd(
        lambda count: rates[count],
        momentum=h["mom"],
        weight_decay=h["phi"],
        lam=h["lam"],
        tau=h["tau"],
        flip_momentum=h["ms"],
        threshold=h["sig"],
        state="ema",
    )

    def look(updates, state):
        del updates
        return {
            "mask": ovsw.silent_mask(state)["latent_kernel"],
            "V": optax.tree.get(state, "trace")["latent_kernel"],
            "n_flip": ovsw.flip_metrics(state)["total"]["flip_ratio"] * 162,
        }

    weight, seen = run(tx, data, look)
    np.testing.assert_allclose(weight[at], expected(data, "W"), rtol=1e-10)
    np.testing.assert_allclose(seen["V"][at], expected(data, "V"), rtol=1e-10, atol=1e-18)
    np.testing.assert_array_equal(seen["mask"][at], expected(data, "mask"))
    silent_count = seen["mask"].sum(axis=(1, 2, 3, 4))
    np.testing.assert_array_equal(silent_count, expected(data, "n_silent"))
    # Line 9 counts the flips of a step at its end, a transform at the start of the next.
    np.testing.assert_array_equal(np.rint(seen["n_flip"][1:]), expected(data, "n_flip")[:-1])
    assert seen["n_flip"][0] == 0


@pytest.mark.parametrize(
    ("variant", "sign_of_zero"), [("Vnew_Snew", 0.0), ("Vnew_Snew_sign0pos", 1.0)]
)
def test_oracle_follows_algorithm_3(data, variant, sign_of_zero):
    h = hyperparameters(data)
    tracker = oracle.FlipTracker(h["ms"], h["sig"], sign_of_zero)
    algorithm = oracle.Algorithm3(
        data["W0"], h["lam"], h["tau"], h["mom"], h["phi"], tracker, axes=(1, 2, 3)
    )
    rows = list(data["rec_steps"])
    for t, (gradient, rate) in enumerate(zip(data["G"], data["beta"], strict=True)):
        _, silent, gbar = algorithm.step(gradient, rate)
        assert silent.sum() == data[f"{variant}/n_silent"][t]
        if t in rows:
            i = rows.index(t)
            np.testing.assert_array_equal(silent, data[f"{variant}/mask"][i])
            np.testing.assert_allclose(gbar, data[f"{variant}/gbar"][i], rtol=1e-10)
            np.testing.assert_allclose(algorithm.weight, data[f"{variant}/W"][i], rtol=1e-10)
