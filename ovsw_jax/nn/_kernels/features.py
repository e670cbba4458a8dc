"""Vectors of one entry per feature, as the operations with (..., features) arrays need them."""

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec


def along_features(parameter: jax.Array, y: jax.Array) -> jax.Array:
    """(features,) as (1, ..., features), of the rank of `y`: JAX may be told to promote none."""
    return jnp.expand_dims(parameter, tuple(range(y.ndim - parameter.ndim)))


def sharded_as_features(x: jax.Array, *arrays: jax.Array) -> tuple[jax.Array, ...]:
    """(features,) arrays, explicitly sharded as the last axis of `x`.

    JAX does so by itself for its own operations. A function with a custom gradient must be given
    operands of the types that their gradients have.
    """
    sharding = jax.typeof(x).sharding
    if not sharding.mesh.explicit_axes:
        return arrays
    target = NamedSharding(sharding.mesh, PartitionSpec(sharding.spec[-1]))
    return tuple(jax.sharding.reshard(a, target) for a in arrays)
