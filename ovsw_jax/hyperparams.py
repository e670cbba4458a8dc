"""Hyperparameters: a number, an array or an Optax schedule, checked where the value is known."""

from collections.abc import Callable
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

# Wider than `optax.ScalarOrSchedule`: the function need not take a Python number.
Hyperparameter = float | jax.Array | Callable[[jax.Array], ArrayLike]

FLOAT32_MAX = float(np.finfo(np.float32).max)


def value_at(hyperparameter: Hyperparameter, count: jax.Array) -> jax.Array | float:
    """The value at update number `count` (int32 scalar, 0 at the first)."""
    if callable(hyperparameter):
        return cast(jax.Array | float, hyperparameter(count))  # Optax says ArrayLike
    return hyperparameter


def known_values(name: str, hyperparameter: Hyperparameter) -> np.ndarray:
    """Its values as float64, or an empty array if they are known only at runtime.

    Raises:
      TypeError: if it is no real number, array of them or schedule.
    """
    if callable(hyperparameter) or isinstance(hyperparameter, jax.core.Tracer):
        return np.empty(0)
    try:
        values = np.asarray(hyperparameter)
    except ValueError:  # a list of lists of several lengths
        values = np.asarray(None)
    if values.dtype.kind not in "fiu" and values.dtype != jnp.bfloat16:
        raise TypeError(
            f"{name}={hyperparameter!r} is no real number: give a number, an array, or a schedule "
            "(a function of the update count)."
        )
    return values.astype(np.float64).ravel()


def known_number(name: str, value: float) -> float:
    """A number that must be known, as float64; TypeError if it is none, or several."""
    try:
        values = known_values(name, value)
    except TypeError:  # which says that a schedule would do
        values = np.empty(0)
    if values.size != 1 or np.shape(value) != ():
        raise TypeError(f"{name}={value!r} is no real number: give a single one that is known.")
    return float(values[0])


def check_flag(name: str, value: bool) -> None:
    """Raises TypeError unless `value` is a bool that is known."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name}={value!r} is no bool: give True or False.")


def check_coefficient(name: str, value: Hyperparameter) -> None:
    """Raises ValueError unless `value` is finite and >= 0, as far as it is known."""
    for v in known_values(name, value):
        if not 0 <= v <= FLOAT32_MAX:
            raise ValueError(
                f"{name}={v:g} is out of range: it must be finite and >= 0, in float32 too "
                f"({name}=0 switches the rule off)."
            )


def check_sharpness(name: str, value: Any) -> None:
    """Raises ValueError unless a sharpness is above 0 and finite, as far as it is known."""
    for v in known_values(name, value):
        if not 0 < v <= FLOAT32_MAX:
            raise ValueError(
                f"{name}={v:g} must be above 0 and finite: IR-Net starts at 0.1 and ends at 10, "
                "BNN+ has 5."
            )


def check_sgd_momentum(value: Hyperparameter) -> None:
    """Raises ValueError unless 0 <= m < 1, as far as it is known."""
    for v in known_values("momentum", value):
        if not 0 <= v < 1:
            raise ValueError(
                f"momentum={v:g} of SGD is out of range: it must be at least 0 and below 1. "
                "Use 0.9 as the paper does, or 0 for none."
            )


def check_state_momentum(value: Hyperparameter) -> None:
    """Raises ValueError unless 0 < mu < 1, as far as it is known."""
    for v in known_values("momentum", value):
        if not 0 < v < 1:
            raise ValueError(
                f"momentum={v:g} of the flip state is out of range: it must lie strictly between "
                "0 and 1 (0.999 in the paper). This is mu of Eq. 15, not the momentum of SGD."
            )


def check_threshold(threshold: Hyperparameter, momentum: Hyperparameter) -> None:
    """Raises ValueError unless 0 < sigma <= 1 - mu, as far as both are known."""
    thresholds = known_values("threshold", threshold)
    for v in thresholds:
        if not (np.isfinite(v) and v > 0):
            raise ValueError(
                f"threshold={v:g} is out of range: it must be finite and > 0, or no weight would "
                "ever be silent. threshold_for_horizon(momentum, steps) gives one from steps."
            )
    momenta = known_values("momentum", momentum)
    # 1 - mu of a float32 mu is known to a thousandth only; that much above it is allowed.
    if thresholds.size and momenta.size and thresholds.max() > (1 - momenta).min() * 1.001:
        raise ValueError(
            f"threshold={thresholds.max():g} can never be reached by a flip: one flip lifts S to "
            f"1 - momentum = {(1 - momenta).min():g}, so a weight would count as silent in the "
            "very step it flips. Use a threshold <= 1 - momentum, for instance from "
            "threshold_for_horizon(momentum, steps)."
        )
