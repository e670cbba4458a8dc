"""The silence horizon: how many steps one flip keeps a weight from being silent."""

import math

from ovsw_jax.hyperparams import check_state_momentum, check_threshold, known_number

SMALLEST = 1e-300  # in float64, like all here; each kind of flip state checks its own range


def silence_horizon(momentum: float, threshold: float) -> int:
    r"""Steps, that of the flip included, for which one flip keeps a weight from being silent.

    A flip lifts S from 0 to :math:`1-\mu`; each step without one multiplies it by :math:`\mu`. The
    weight is silent again at the first step with :math:`(1-\mu)\mu^n < \sigma`; this is n.

    Args:
      momentum: :math:`\mu` of Eq. 15, in (0, 1).
      threshold: :math:`\sigma` of Eq. 16, in (0, 1 - mu].

    Returns:
      The horizon in optimizer steps, at least 1.

    Raises:
      ValueError: if either is out of range.
      TypeError: if either is not a real number.

    >>> silence_horizon(0.999, 1e-4)
    2302

    Source: follows from Eqs. 15 and 16 of OvSW (Xiang et al., ECCV 2024).
    """
    momentum = known_number("momentum", momentum)
    threshold = known_number("threshold", threshold)
    check_state_momentum(momentum)
    check_threshold(threshold, momentum)
    nats = math.log(1 - momentum) - math.log(threshold)
    steps = math.floor(nats / -math.log(momentum)) + 1
    # The logarithms may be a step off where (1 - mu) mu^n is nearly equal to sigma.
    while steps > 1 and (1 - momentum) * momentum ** (steps - 1) < threshold:
        steps -= 1
    while (1 - momentum) * momentum**steps >= threshold:
        steps += 1
    return max(steps, 1)  # a threshold of 1 - mu may round to just above it


def threshold_for_horizon(momentum: float, steps: int) -> float:
    r"""The threshold :math:`\sigma` that gives a silence horizon of `steps`.

    Args:
      momentum: :math:`\mu` of Eq. 15, in (0, 1).
      steps: the horizon in optimizer steps (epochs x steps per epoch), at least 1.

    Returns:
      A threshold in (0, 1 - mu], with `silence_horizon(momentum, threshold) == steps`; only
      nearly so above 1e12 steps, where the precision of float64 ends.

    Raises:
      ValueError: if `momentum` is out of range, `steps` is not a whole number >= 1, or the
        threshold underflows.
      TypeError: if either is not a real number.

    >>> silence_horizon(0.999, threshold_for_horizon(0.999, 5 * 391))  # five CIFAR epochs
    1955

    Source: inverse of `silence_horizon`.
    """
    momentum, count = known_number("momentum", momentum), known_number("steps", steps)
    check_state_momentum(momentum)
    if not (math.isfinite(count) and count >= 1 and count == int(count)):
        raise ValueError(
            f"steps={steps} is out of range: a silence horizon is a whole number of optimizer "
            "steps, at least 1, since a weight is not silent in the step it flips."
        )
    # Half a step below the last value that must still count as not silent.
    threshold = float((1 - momentum) * momentum ** (count - 0.5))
    if threshold < SMALLEST:
        raise ValueError(
            f"steps={steps} at momentum={momentum:g} needs a threshold below {SMALLEST:g}, which "
            "no float holds. Use a momentum nearer to 1, such as 1 - 10 / steps."
        )
    return threshold
