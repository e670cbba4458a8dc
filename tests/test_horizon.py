"""The silence horizon against the moving average run step by step."""

import math

import numpy as np
import oracle
from hypothesis import given
from hypothesis import strategies as st

import ovsw_jax as ovsw


def test_the_paper_s_rule_lasts_2302_steps():
    assert ovsw.silence_horizon(0.999, 1e-4) == 2302


def test_a_threshold_of_1_minus_momentum_lasts_for_the_step_of_the_flip():
    assert ovsw.silence_horizon(0.75, 0.25) == 1
    assert ovsw.silence_horizon(0.9, 0.1) == 1  # in floats 1 - 0.9 is a little below 0.1


@given(st.floats(0.01, 0.999), st.floats(1e-6, 1))
def test_silence_horizon_equals_the_average_run_step_by_step(momentum, share):
    threshold = share * (1 - momentum)
    # Where S comes within rounding of sigma, the order of the multiplications decides.
    steps = math.log(share) / math.log(momentum)
    expected = oracle.silence_horizon(momentum, threshold)
    tie = abs(steps - round(steps)) < 1e-9 * (1 + steps)
    assert abs(ovsw.silence_horizon(momentum, threshold) - expected) <= tie


@given(st.floats(0.01, 0.9999), st.integers(1, 20_000))
def test_threshold_for_horizon_is_the_inverse(momentum, steps):
    steps = min(steps, max(1, int(-600 / math.log(momentum))))  # else sigma underflows
    threshold = ovsw.threshold_for_horizon(momentum, steps)
    assert 0 < threshold <= 1 - momentum
    assert ovsw.silence_horizon(momentum, threshold) == steps
    if steps < 3000:
        assert oracle.silence_horizon(momentum, threshold) == steps


def test_a_horizon_from_numpy_integers():
    steps = np.int64(5) * 391
    assert ovsw.silence_horizon(0.999, ovsw.threshold_for_horizon(0.999, steps)) == 1955
