"""Vectors of one entry per feature, as the operations with (..., features) arrays need them."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from ovsw_jax.nn._checks import check_counts, real_array


def sizes(name: str, features: int | Sequence[int]) -> tuple[int, ...]:
    """Sizes of several axes of features, of which one may be given by its number alone.

    Raises:
      ValueError: unless all are positive integers, and there is one at least.
    """
    given = tuple(features) if isinstance(features, Sequence) and features else (features,)
    for size in given:
        check_counts(**{name: size})
    return given  # type: ignore[return-value]


def axes_of(axis: int | Sequence[int]) -> tuple[int, ...]:
    """Several axes, of which one may be given by its number alone."""
    return tuple(axis) if isinstance(axis, Sequence) else (axis,)


def features_last(x: jax.Array, features: tuple[int, ...] | None, axis: Sequence[int]) -> jax.Array:
    """(..., product of features), with the axes of the features joined at the end.

    Args:
      x: the input of a layer.
      features: sizes of its axes of features; None for any.
      axis: which axes these are.

    Raises:
      ValueError: if `x` has no such axes.
      TypeError: if it is no real array.
    """
    x = real_array("input", x)
    exist = all(isinstance(a, int) and -x.ndim <= a < x.ndim for a in axis)
    found = tuple(x.shape[a] for a in axis) if exist else (0,)
    differ = exist and len({a % x.ndim for a in axis}) == len(axis)
    if not differ or 0 in found or features not in (None, found):
        raise ValueError(
            f"input of shape {x.shape} does not fit a layer whose features are on axis="
            f"{tuple(axis)}, of the sizes in_features={features or 'any'}, not 0."
        )
    x = jnp.moveaxis(x, axis, range(-len(axis), 0))
    return x.reshape(*x.shape[: x.ndim - len(axis)], math.prod(found))


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
