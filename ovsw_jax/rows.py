"""Numbers of all layers in one array, a row per layer, so that few kernels compute with them.

A GPU launches a kernel for each reduction of each layer, which takes longer than most of them
compute. So there layers of one shape are reduced together, and what is small, a number per filter,
is computed of all layers together. Nothing as large as the weights is copied for it. The CPU's and
the TPU's compilers gain nothing from it.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental.layout import Layout, with_layout_constraint
from jax.sharding import AxisType

from ovsw_jax.nn.platforms import platform
from ovsw_jax.precision import accurate_dtype


class Rows(NamedTuple):
    """Arrays of different sizes as rows of one.

    Attributes:
      values: (arrays, entries of the largest), with zeros behind each.
      of: the row of each array.
      sizes: entries of each row that are its array's.
    """

    values: jax.Array
    of: Sequence[int]
    sizes: np.ndarray

    @property
    def filled(self) -> np.ndarray:
        """Which values are no zeros behind an array; bool."""
        return np.arange(self.values.shape[1]) < self.sizes[:, None]


def in_rows(*lists: Sequence[jax.Array]) -> bool:
    """Whether to compute with small numbers of layers together; lists have an array per layer.

    Only if several have one precision, and each device has them whole as far as their types say:
    layers that are split over devices in different ways would have to be gathered.
    """
    arrays = [x for of_layers in lists for x in of_layers]
    if platform() != "gpu" or len(lists[0]) < 2 or any(map(_may_be_split, arrays)):
        return False
    return len({jax.typeof(_nothing(x)) for x in arrays}) == 1


def _may_be_split(x: jax.Array) -> bool:
    """Whether XLA may compute with parts of an array; within `shard_map` it is one part."""
    mesh = jax.typeof(x).sharding.mesh
    sizes = zip(mesh.axis_sizes, mesh.axis_types, strict=True)
    return any(size > 1 and kind != AxisType.Manual for size, kind in sizes)


def _nothing(x: jax.Array) -> jax.Array:
    """A sum over no entries, of whose type there is one per precision and way to vary over axes."""
    return jnp.sum(x.ravel()[:0], dtype=accurate_dtype(x))


def sums(
    arrays: Sequence[jax.Array], axes: Sequence[tuple[int, ...]], *, adjacent: bool = False
) -> Rows:
    """Sums of arrays of one dtype, each over its axes, in a row per array.

    Args:
      arrays: what to sum; those of one shape are summed in one kernel.
      axes: of each array, those to sum over.
      adjacent: whether to read the arrays as if these axes were the last ones, as a GPU's
        convolutions write the gradients of kernels.
    """
    alike = defaultdict(list)
    for i, (x, over) in enumerate(zip(arrays, axes, strict=True)):
        alike[x.shape, over].append(i)
    parts, sizes = [], []
    for (shape, over), layers in alike.items():
        stacked = jnp.stack([arrays[i] for i in layers])
        if adjacent:
            stacked = laid_out(stacked, last=[axis + 1 for axis in over])
        parts.append(_partial_sums(stacked, [axis + 1 for axis in over]))
        sizes += [math.prod(n for axis, n in enumerate(shape) if axis not in over)] * len(layers)
    most = np.max([x.shape[1:] for x in parts], axis=0)
    padded = [jnp.pad(x, ((0, 0), *((0, n) for n in most - x.shape[1:]))) for x in parts]
    order = [i for layers in alike.values() for i in layers]
    of = np.argsort(order).tolist()
    return Rows(jnp.sum(jnp.concatenate(padded), 1, padded[0].dtype), of, np.array(sizes))


def _partial_sums(stacked: jax.Array, over: Sequence[int]) -> jax.Array:
    """Sums over the longest axis; (layers, numbers left to add, filters).

    XLA would sum many weights in two kernels for each shape; the second is one for all shapes.
    """
    longest = [max(over, key=lambda axis: stacked.shape[axis])] if over else []
    partial = jnp.sum(stacked, longest, stacked.dtype, keepdims=True)
    partial = jnp.moveaxis(partial, over, range(1, len(over) + 1))
    left, filters = partial.shape[1 : len(over) + 1], partial.shape[len(over) + 1 :]
    return partial.reshape(len(stacked), math.prod(left), math.prod(filters))


def apart(arrays: Sequence[jax.Array]) -> list[jax.Array]:
    """The arrays, for which a GPU has kernels of their own; they lie as `laid_out` says.

    Fused with what reads them, XLA would compute them in the order of the gradients in memory,
    which takes transposed copies of the state.
    """
    return list(lax.optimization_barrier(tuple(map(laid_out, arrays))))


def laid_out(x: jax.Array, last: Sequence[int] = ()) -> jax.Array:
    """The array, with its axes in memory in their order, but for some that are the last."""
    first = [axis for axis in range(x.ndim) if axis not in last]
    return with_layout_constraint(x, Layout(major_to_minor=(*first, *last)))
