"""Layers whose operands' types say how they are sharded (`AxisType.Explicit`)."""

from collections.abc import Callable

import jax
from jax.sharding import NamedSharding, PartitionSpec


def without_explicit_axes(
    function: Callable[..., jax.Array],
    x: jax.Array,
    kernel: jax.Array,
    *others: jax.Array | None,
    batch_axes: int,
) -> jax.Array:
    """Calls a layer's arithmetic with explicit mesh axes made automatic: XLA shards what is within.

    JAX alone would ask how each product is to be sharded, unless its kernel is whole on every
    device. Here batch axes stay sharded as those of `x`, output features as those of the kernel.

    Args:
      function: of `x`, `kernel` and `others`.
      x: (*batch, ..., in_features).
      kernel: (..., in_features, out_features).
      *others: more operands.
      batch_axes: how many axes of `x` are batch axes.

    Returns:
      (*batch, ..., out_features), of as many axes as `x`.
    """
    sharding = jax.typeof(x).sharding
    explicit = sharding.mesh.explicit_axes
    if not explicit:
        return function(x, kernel, *others)
    of_batch, of_features = sharding.spec[:batch_axes], jax.typeof(kernel).sharding.spec[-1]
    # A mesh axis shards one array axis only: with FSDP, that of the batch.
    if any(set(_mesh_axes(of_features)) & set(_mesh_axes(entry)) for entry in of_batch):
        of_features = None
    spec = PartitionSpec(*of_batch, *[None] * (x.ndim - batch_axes - 1), of_features)
    out_sharding = NamedSharding(sharding.mesh, spec)
    automatic = jax.sharding.auto_axes(function, axes=explicit, out_sharding=out_sharding)
    return automatic(x, kernel, *others)


def _mesh_axes(entry: str | tuple[str, ...] | None) -> tuple[str, ...]:
    return (entry,) if isinstance(entry, str) else entry or ()
