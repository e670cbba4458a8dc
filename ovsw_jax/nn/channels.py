"""What modules with one parameter a channel share."""

import jax
import jax.numpy as jnp

from ovsw_jax.arguments import floating_array


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


def along_features(parameter: jax.Array, y: jax.Array) -> jax.Array:
    """(features,) as (1, ..., features), of the rank of `y`: JAX may be told to promote none."""
    return jnp.expand_dims(parameter, tuple(range(y.ndim - parameter.ndim)))
