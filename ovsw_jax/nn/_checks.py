"""What arguments must be: arrays, dtypes, counts and inputs with channels, or an error."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def real_array(name: str, x: Any) -> jax.Array:
    """`x` as a JAX array.

    Args:
      name: of the argument, for the error.
      x: an array of JAX or NumPy, a number, or what holds an array, such as an `nnx.Variable`.

    Raises:
      TypeError: if it is none of these, or not real.
    """
    if isinstance(x, jax.Array) and _is_real(x.dtype):
        return x
    array = None
    if isinstance(x, jax.Array | np.ndarray | np.generic | int | float) or _holds_array(x):
        try:
            with np.errstate(over="ignore"):
                array = jnp.asarray(x)
        except (TypeError, ValueError, OverflowError):
            pass
    if array is None or not _is_real(array.dtype):
        raise TypeError(
            f"{name}={_described(x)} is no real array: give one of JAX or NumPy, or a number."
        )
    return array


def floating_array(name: str, x: Any) -> jax.Array:
    """As `real_array`, of a floating-point type."""
    array = real_array(name, x)
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise TypeError(
            f"{name} has dtype {array.dtype}; it must be a real floating-point array. Convert it, "
            "e.g. to float32."
        )
    return array


def check_floating_dtype(**dtypes: Any) -> None:
    """Raises TypeError unless every argument is a real floating-point dtype, or None."""
    for name, dtype in dtypes.items():
        if dtype is not None and not jnp.issubdtype(as_dtype(name, dtype), jnp.floating):
            raise TypeError(
                f"{name}={dtype!r} can't hold what a network computes: use float32, bfloat16 or "
                "another real floating-point type."
            )


def as_dtype(name: str, dtype: Any) -> np.dtype[Any]:
    """The dtype that an argument names; TypeError if it is none."""
    try:
        return jnp.dtype(dtype)
    except TypeError as error:
        raise TypeError(f"{name}={dtype!r} is no dtype, such as jnp.float32.") from error


def is_count(value: object) -> bool:
    """Whether a value is a positive integer, of Python or NumPy."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        return False
    return bool(value > 0)


def check_counts(**counts: object) -> None:
    """Raises ValueError unless every argument is a positive integer."""
    for name, value in counts.items():
        if not is_count(value):
            raise ValueError(f"{name}={value!r} must be a positive integer.")


def channels(x: jax.Array) -> int:
    """How many channels an input has, before there is a parameter for each.

    Raises:
      ValueError: if it has no axis of channels.
      TypeError: if it is no real floating-point array.
    """
    shape = floating_array("input", x).shape
    if not shape:
        raise ValueError("input of shape () has no channels: they are its last axis.")
    return shape[-1]


def check_channels(x: jax.Array, parameter: jax.Array) -> jax.Array:
    """The input as an array whose last axis holds as many channels as `parameter`.

    Raises:
      ValueError: if it does not.
      TypeError: if it is not of a real floating-point type, which the result would have.
    """
    x = floating_array("input", x)
    if x.shape[-1:] != parameter.shape[-1:]:
        raise ValueError(
            f"input of shape {x.shape} does not fit {parameter.shape[-1]} channels: its last axis "
            f"must have size {parameter.shape[-1]} (channels last)."
        )
    return x


def _is_real(dtype: Any) -> bool:
    return any(jnp.issubdtype(dtype, kind) for kind in (jnp.floating, jnp.integer, jnp.bool_))


def _holds_array(x: Any) -> bool:
    return hasattr(type(x), "__jax_array__")


def _described(x: Any) -> str:
    return f"an array of {x.dtype}" if isinstance(x, jax.Array | np.ndarray) else repr(x)
