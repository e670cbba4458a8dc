"""What modules with one parameter a channel share."""

import jax
import jax.numpy as jnp


def check_channels(x: jax.Array, parameter: jax.Array) -> None:
    """Raises unless the last axis of `x` holds as many channels as `parameter`, all real.

    Raises:
      ValueError: if it does not.
      TypeError: if `x` is not of a real floating-point type, which its result would have.
    """
    if x.ndim == 0 or x.shape[-1] != parameter.shape[-1]:
        raise ValueError(
            f"input of shape {x.shape} does not fit {parameter.shape[-1]} channels: its last axis "
            f"must have size {parameter.shape[-1]} (channels last)."
        )
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(
            f"input has dtype {x.dtype}; its channels are shifted or scaled by learned numbers, "
            "which takes a real floating-point array. Convert it, e.g. to float32."
        )
