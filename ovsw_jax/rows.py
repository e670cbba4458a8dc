"""Numbers of all layers in one array, a row per layer, so that few kernels compute with them.

A GPU launches a kernel for each reduction of each layer, which takes longer than most of them
compute. So there layers of one shape are reduced together, and what is small, a number per filter,
is computed of all layers together. Nothing as large as the weights is copied for it.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jax.experimental.layout import Layout, with_layout_constraint

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


def in_rows(arrays: Sequence[jax.Array]) -> bool:
    """Whether to compute with small numbers of these layers' arrays together.

    Only if they have one precision, and lie on the same devices as far as their types say.
    """
    if platform() != "gpu" or any(jax.typeof(x).sharding.mesh.explicit_axes for x in arrays):
        return False
    return len({jax.typeof(_nothing(x)) for x in arrays}) == 1


def _nothing(x: jax.Array) -> jax.Array:
    """A sum over no entries, of whose type there is one per precision and way to vary over axes."""
    return jnp.sum(x.ravel()[:0], dtype=accurate_dtype(x))


def sums(
    arrays: Sequence[jax.Array], axes: Sequence[tuple[int, ...]], *, adjacent: bool = False
) -> Rows:
    """Sums of arrays of one dtype, each over its axes; arrays of one shape are summed together.

    Args:
      arrays: of which a sum is a row.
      axes: of each array, what to sum over.
      adjacent: whether what is summed is best read as if it were adjacent in memory.
    """
    alike = defaultdict(list)
    for i, (x, over) in enumerate(zip(arrays, axes, strict=True)):
        alike[x.shape, over].append(i)
    blocks = []
    for (_, over), layers in alike.items():
        stacked = jnp.stack([arrays[i] for i in layers])
        if adjacent:
            stacked = as_laid_out(stacked, last=[axis + 1 for axis in over])
        summed = jnp.sum(stacked, [axis + 1 for axis in over], arrays[0].dtype)
        blocks.append(summed.reshape(len(layers), -1))
    longest = max(block.shape[1] for block in blocks)
    padded = [jnp.pad(block, ((0, 0), (0, longest - block.shape[1]))) for block in blocks]
    sizes = np.concatenate([[block.shape[1]] * len(block) for block in blocks])
    order = np.concatenate(list(alike.values()))
    return Rows(jnp.concatenate(padded), np.argsort(order).tolist(), sizes)


def as_laid_out(x: jax.Array, last: Sequence[int] = ()) -> jax.Array:
    """The array as one whose axes lie in memory in their order, but for the `last` ones.

    Gradients are not: kernels of GPUs write them in an order of their own, in which XLA would
    compute all that is made of them, with transposed copies of the state.
    """
    first = [axis for axis in range(x.ndim) if axis not in last]
    return with_layout_constraint(x, Layout(major_to_minor=(*first, *last)))
