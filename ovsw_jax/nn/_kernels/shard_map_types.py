"""Operands of a custom gradient under `shard_map`, where types say over which axes arrays vary."""

import jax
import jax.numpy as jnp
from jax import lax


def varying_alike(*arrays: jax.Array) -> tuple[jax.Array, ...]:
    """The arrays, each varying over all the mesh axes that one of them varies over.

    JAX does so by itself for its own operations, and sums their gradients over those axes again. A
    function with a custom gradient has to be given operands that are alike. The zero that is added
    is a constant to the compiler, but varies as what it was made of.
    """
    if not jax.sharding.get_abstract_mesh().manual_axes:
        return arrays
    zero = jnp.zeros(())
    for x in arrays:
        zero = zero + lax.stop_gradient(jnp.sum(x.ravel()[:0])).astype(jnp.float32)
    return tuple(x + zero.astype(x.dtype) for x in arrays)
