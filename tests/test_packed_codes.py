"""Codes of the packed flip state against the plain formula in float64, for every code there is."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ovsw_jax as ovsw
from ovsw_jax.flip_state import KINDS
from ovsw_jax.flip_state.shares import share

pytestmark = pytest.mark.usefixtures("strict_promotion")

packed = KINDS["packed"]
GRID, TOP = 0.0005, 32767
CODES = np.arange(2**16, dtype=np.uint16)
momenta = st.floats(np.log(5.01e-4), np.log(0.9)).map(lambda x: np.float32(1 - np.exp(x)))
phases = st.floats(0, 0.999).map(np.float32)


def plain(positive, flipped, momentum, phase):
    """Eq. 15 on log S: what a level falls by is rounded down, what a flip lifts it to as well."""
    mu, phase = float(momentum), float(phase)
    level = (CODES & 0x7FFF).astype(np.int64)
    due = phase - np.log(mu) / GRID
    lost, after = np.floor(due), due - np.floor(due)
    decayed = np.where(level == 0, 0, np.maximum(level - lost, 1))
    average = np.where(level > 1, np.exp((level - (TOP - 0.5) - phase) * GRID), 0)
    exact = np.log(mu * average + (1 - mu)) / GRID + TOP + after
    lifted = np.clip(np.floor(exact), 1, TOP)
    return np.where(flipped, lifted, decayed), np.where(positive, 0x8000, 0)


@jax.jit
def update(positive, flipped, momentum, phase):
    return packed.update(jnp.asarray(CODES), positive, flipped, momentum, phase)


@given(momenta, phases, st.booleans(), st.integers(0, 2**32 - 1))
def test_codes_are_those_of_the_plain_formula(momentum, phase, compiled, seed):
    positive, flipped = np.random.default_rng(seed).random((2, len(CODES))) < 0.5
    level, sign = plain(positive, flipped, momentum, phase)
    operands = map(jnp.asarray, (positive, flipped, momentum, phase))
    # Compiled or not decides the last digit of a float32.
    codes = (update if compiled else update.__wrapped__)(*operands)
    assert codes.dtype == jnp.uint16
    codes = np.asarray(codes).astype(np.int64)
    np.testing.assert_array_equal(codes & 0x8000, sign)
    off = np.abs((codes & 0x7FFF) - level)
    np.testing.assert_array_equal(off[~flipped], 0)
    assert off.max() <= 1  # where S is all but between two levels
    # float32 knows the momentum to 6e-8, the smallest 1 - mu to a ten-thousandth.
    assert np.mean(off[flipped]) < 0.15


@pytest.mark.parametrize("momentum", [1.0, np.nextafter(np.float32(1), np.float32(0))])
def test_a_momentum_that_rounds_to_one_loses_no_flip(momentum):
    """As in bfloat16: it lifts by next to nothing, and S stays."""
    everywhere = jnp.ones(len(CODES), bool)
    codes = update(everywhere, everywhere, jnp.float32(momentum), jnp.float32(0))
    assert not np.any(packed.never_flipped(codes))
    ever = (CODES & 0x7FFF) > 20000
    off = np.asarray(codes).astype(int) - 0x8000 - (CODES & 0x7FFF)
    assert np.abs(off[ever]).max() <= 1


shapes = st.lists(st.integers(0, 5), max_size=5).map(tuple)


@pytest.mark.long
@given(shapes, st.integers(0, 2**32 - 1))
def test_share_counts_what_holds(shape, seed):
    x, y = np.random.default_rng(seed).standard_normal((2, *shape)).astype(np.float32)
    counted = share(lambda a, b: a > b, jnp.asarray(x), jnp.asarray(y))
    assert counted.dtype == jnp.float32
    np.testing.assert_allclose(counted, np.sum(x > y) / max(x.size, 1), rtol=1e-6)


@pytest.mark.parametrize("shape", [(3, 3, 2, 5), (9, 9, 2, 5), (2, 3, 3, 2, 5), (300, 300)])
def test_share_of_all(shape):
    assert share(lambda x: x == 0, jnp.zeros(shape)) == 1


@pytest.mark.parametrize("state", KINDS)
@pytest.mark.parametrize("acts", [True, False])
def test_a_compiled_step_makes_no_copy_of_what_it_overwrites(acts, state):
    """What must be read of weights and history is read before they are written, also to count."""
    observed = optax.chain(ovsw.track_flip_state(state=state), optax.sgd(0.1, momentum=0.9))
    tx = ovsw.ovsw_sgd(0.1, state=state) if acts else observed
    params = {"latent_kernel": jnp.ones((3, 3, 64, 64))}

    def step(params, opt_state, grads):
        updates, opt_state = tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, ovsw.flip_metrics(opt_state)

    compiled = jax.jit(step, donate_argnums=(0, 1)).lower(params, tx.init(params), params).compile()
    memory = compiled.memory_analysis()
    if acts and jax.__version_info__ < (0, 10, 2):
        pytest.skip("XLA of jax 0.10.0 copies here; 0.10.2 does not")
    if memory is None:
        pytest.skip("this backend does not say what memory a program takes")
    assert memory.temp_size_in_bytes < params["latent_kernel"].nbytes // 2  # a copy takes all of it


@pytest.mark.parametrize("value", [jnp.nan, jnp.inf, -0.0, 1e-40])
@pytest.mark.parametrize("state", KINDS)
def test_an_observer_passes_every_gradient_bit_for_bit(state, value):
    tx = ovsw.track_flip_state(state=state)
    params = {"latent_kernel": jnp.array([[1.0, -2.0]])}
    gradient = jnp.array([[value, 3.0]])
    passed, _ = jax.jit(tx.update)({"latent_kernel": gradient}, tx.init(params), params)
    bits = [np.asarray(x).view(np.uint32) for x in (passed["latent_kernel"], gradient)]
    np.testing.assert_array_equal(*bits)
