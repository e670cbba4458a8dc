"""Arguments that must be arrays or dtypes: as such, or an error that names what they are."""

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


def _is_real(dtype: Any) -> bool:
    return any(jnp.issubdtype(dtype, kind) for kind in (jnp.floating, jnp.integer, jnp.bool_))


def _holds_array(x: Any) -> bool:
    return hasattr(type(x), "__jax_array__")


def _described(x: Any) -> str:
    return f"an array of {x.dtype}" if isinstance(x, jax.Array | np.ndarray) else repr(x)
