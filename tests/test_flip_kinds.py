"""What every kind of flip state must do, a new one in the table too, and that one is enough."""

import math
from typing import get_args

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flip_runs import averages
from jax import lax

import ovsw_jax as ovsw
from ovsw_jax.flip_state import KINDS, FlipStateKind, StateKind, kind_of
from ovsw_jax.flip_state.ema import Ema

pytestmark = pytest.mark.usefixtures("strict_promotion")

MU, SIGMA = 0.9, 0.01  # a horizon of 22 steps
STEPS, WEIGHTS = 150, 60
GRID = 0.3  # nats, by which a kind may be off for weights that flip often


@pytest.fixture(params=KINDS)
def kind(request):
    return KINDS[request.param]


def test_the_table_names_every_kind():
    assert get_args(StateKind) == tuple(KINDS)
    for name, kind in KINDS.items():
        assert kind.name == name
        assert isinstance(kind, FlipStateKind)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_a_stored_history_tells_its_kind(kind, dtype):
    history = kind.init(jnp.array([1.0, -1.0], dtype))
    assert [k for k in KINDS.values() if k.holds(history.dtype)] == [kind]
    assert kind_of(history) is kind
    stored = {"packed": jnp.uint16, "packed8": jnp.uint8, "ema": jnp.float32}
    assert (history.shape, history.dtype) == ((2,), stored[kind.name])


def test_a_stored_history_of_no_kind():
    state = ovsw.sad().init({"latent_kernel": jnp.ones(2)})
    odd = state._replace(history={"latent_kernel": jnp.zeros(2, jnp.int32)})
    for read in (ovsw.flip_metrics, ovsw.silent_mask, ovsw.never_flipped_mask):
        with pytest.raises(ValueError, match=r"dtype int32, which no kind .*'packed8', 'ema'\)"):
            read(odd)


@pytest.fixture
def lived(kind):
    """Weights that flip at rates from never to often: the state, its mask, and the oracle's S."""
    rng = np.random.default_rng(5)
    rates = np.linspace(0, 0.3, WEIGHTS) * (np.arange(WEIGHTS) % 3 > 0)
    flips = rng.random((STEPS, WEIGHTS)) < rates
    signs = np.where(np.cumsum(flips, axis=0) % 2, -1.0, 1.0).astype(np.float32)
    tx = ovsw.track_flip_state(momentum=MU, threshold=SIGMA, state=kind.name)

    def step(state, sign):
        params = {"latent_kernel": sign}
        _, state = tx.update(params, state, params)
        return state, ovsw.silent_mask(state)["latent_kernel"]

    start = tx.init({"latent_kernel": jnp.asarray(signs[0])})
    state, silent = jax.jit(lambda s: lax.scan(step, start, s))(signs)
    ema, _, never = averages(signs > 0, MU)
    return state, np.asarray(silent), ema, never[-1], signs[-1] > 0


def test_it_follows_the_average(kind, lived):
    state, silent, ema, never, positive = lived
    history = state.history["latent_kernel"]
    assert history.shape == (WEIGHTS,)
    np.testing.assert_array_equal(kind.never_flipped(history), never)
    np.testing.assert_array_equal(kind.last_sign_positive(history), positive)
    clear = np.abs(np.log(np.maximum(ema, 1e-30) / SIGMA)) > GRID
    assert 0.1 < np.mean(silent[clear]) < 0.9
    np.testing.assert_array_equal(silent[clear], (ema < SIGMA)[clear])

    stored = np.asarray(kind.average(history, state.phase), np.float64)
    np.testing.assert_array_equal(stored == 0, never)
    held = ema[-1] > 0.1 * SIGMA
    np.testing.assert_allclose(np.log(stored[held]), np.log(ema[-1][held]), atol=GRID)


def test_limits_of_the_threshold(kind, lived):
    state, _, _, never, _ = lived
    history = state.history["latent_kernel"]
    assert np.all(kind.silent(history, jnp.float32(1.5), state.phase))
    lowest = jnp.float32(1e-30)
    assert np.all(np.asarray(kind.silent(history, lowest, state.phase))[never])


def test_it_comes_back_from_its_average(kind, lived):
    state, *_ = lived
    history = state.history["latent_kernel"]
    average = kind.average(history, state.phase)
    again = kind.of_average(average, kind.last_sign_positive(history), state.phase)
    chex.assert_trees_all_equal(again, history)
    chex.assert_trees_all_equal(kind.in_dtype(history, jnp.float32), history)


def test_it_holds_the_defaults_and_refuses_what_no_kind_holds(kind):
    kind.check_range(0.999, 1e-4)
    for momentum, threshold in ((1 - 1e-12, 1e-13), (0.999, 1e-39)):
        with pytest.raises(ValueError, match=r"(momentum|threshold)=.*[Uu]se"):
            kind.check_range(momentum, threshold)


class Bits(Ema):
    """The bits of the average as an integer: a kind that the library knows nothing of."""

    name, description = "bits", "four bytes, as integers"

    def holds(self, dtype):
        return dtype == jnp.int32

    def init(self, weight):
        return _bits(super().init(weight))

    def update(self, history, *step):
        return _bits(super().update(_floats(history), *step))

    def of_average(self, average, positive, phase):
        return _bits(super().of_average(average.astype(jnp.float32), positive, phase))

    def last_sign_positive(self, history):
        return super().last_sign_positive(_floats(history))

    def silent(self, history, threshold, phase):
        return super().silent(_floats(history), threshold, phase)

    def never_flipped(self, history):
        return super().never_flipped(_floats(history))

    def average(self, history, phase):
        return super().average(_floats(history), phase)

    def in_dtype(self, history, dtype):
        return history


def _bits(history):
    return lax.bitcast_convert_type(history, jnp.int32)


def _floats(history):
    return lax.bitcast_convert_type(history, jnp.float32)


def test_a_new_kind_is_a_row_of_the_table(monkeypatch):
    monkeypatch.setitem(KINDS, "bits", Bits())
    params = {"latent_kernel": jnp.array([[1.0, -2.0], [3.0, -4.0]])}
    flipped = {"latent_kernel": params["latent_kernel"] * jnp.array([[1.0], [-1.0]])}
    outcome = {}
    for state in ("ema", "bits"):
        tx = ovsw.sad(0.1, momentum=MU, threshold=SIGMA, state=state)
        _, after = tx.update(params, tx.init(params), params)
        outcome[state] = tx.update(params, after, flipped)
    assert outcome["bits"][1].history["latent_kernel"].dtype == jnp.int32
    chex.assert_trees_all_equal(outcome["bits"][0], outcome["ema"][0])
    for read in (ovsw.flip_metrics, ovsw.silent_mask, ovsw.never_flipped_mask):
        chex.assert_trees_all_equal(read(outcome["bits"][1]), read(outcome["ema"][1]))
    total = ovsw.flip_metrics(outcome["bits"][1])["total"]
    assert math.isclose(total["silent_ratio"], 0.5)
    there = ovsw.convert_flip_state(outcome["ema"][1], "bits")
    chex.assert_trees_all_equal(there, outcome["bits"][1])
    chex.assert_trees_all_equal(ovsw.convert_flip_state(there, "ema"), outcome["ema"][1])
    with pytest.raises(ValueError, match=r"or 'bits' \(four bytes, as integers\)\.$"):
        ovsw.sad(state="float")
