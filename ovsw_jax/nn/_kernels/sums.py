"""Sums that are taken together, so that what they are taken of is read once."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

from ovsw_jax.nn.platforms import platform


def sum_pair(
    a: jax.Array, b: jax.Array, axes: Sequence[int], *, keepdims: bool = False
) -> tuple[jax.Array, jax.Array]:
    """Sums of two arrays of one shape and dtype, float32 or float64, along the same axes.

    XLA's GPU compiler computes one sum in the kernel that makes its operand, but not two of them.
    So there the two are one sum of complex numbers.
    """
    axes = tuple(axes)
    if platform() != "gpu":
        return jnp.sum(a, axes, keepdims=keepdims), jnp.sum(b, axes, keepdims=keepdims)
    both = jnp.sum(lax.complex(a, b), axes, keepdims=keepdims)
    return both.real, both.imag


def mean_and_variance(
    x: jax.Array, shift: jax.Array | float, axes: Sequence[int]
) -> tuple[jax.Array, jax.Array]:
    """Mean and biased variance in one pass, with axes of size 1 for those summed over.

    Args:
      x: float32 or float64.
      shift: broadcasts to `x`; constant along `axes`. The rounding error of the variance is that
        of (mean - shift)^2, so a number near the mean is a good one.
      axes: to sum over.
    """
    count = 1
    for axis in axes:
        count *= x.shape[axis]
    moved = x - shift
    total, squares = sum_pair(moved, jnp.square(moved), axes, keepdims=True)
    mean = total / count
    return shift + mean, jnp.maximum(squares / count - jnp.square(mean), 0)
