"""A factor that shows NaN and infinity behind a sign, which +1 and -1 hide: 1, or NaN.

A layer multiplies its result by it. 1 changes no bit; NaN makes the output NaN and, in the backward
pass, every gradient.
"""

from collections.abc import Iterable

import jax
import jax.numpy as jnp
from flax import linen, nnx
from jax import lax

from ovsw_jax.precision import accurate_dtype


def nan_unless_finite(
    x: jax.Array, axes: Iterable[int] | None = None, *, keepdims: bool = False
) -> jax.Array:
    """1 where all numbers along `axes` are finite, else NaN.

    Args:
      x: real array.
      axes: to look along; None: all.
      keepdims: leave those axes in the result, with size 1.

    Returns:
      Array of the other axes; float32, or float64 for float64.

    >>> nan_unless_finite(jnp.array([[0.0, 2.0], [jnp.inf, 0.0]]), [1]).tolist()
    [1.0, nan]
    """
    wide = lax.stop_gradient(x).astype(accurate_dtype(x))
    return 1 + jnp.sum(0 * wide, None if axes is None else tuple(axes), keepdims=keepdims)


def parameters_of(sign: object) -> list[jax.Array]:
    """The parameters of a sign that is a module, such as the thresholds of one; none of others.

    Args:
      sign: of activations; a linen module must have been called.
    """
    if isinstance(sign, nnx.Module):
        return jax.tree.leaves(nnx.to_pure_dict(nnx.state(sign, nnx.Param)))
    if isinstance(sign, linen.Module):
        return jax.tree.leaves(sign.variables.get("params", {}))
    return []
