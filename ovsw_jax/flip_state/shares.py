"""Shares of weights for which something holds, counted without writing a bool for each of them."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from ovsw_jax.rows import in_rows, sums

MAX_TAPS = 64  # of a kernel, each an operand of one sum: a larger one only compiles longer


def share(test: Callable[..., jax.Array], *arrays: jax.Array) -> jax.Array:
    """The share of entries for which a test holds.

    XLA's CPU backend writes four bytes for every bool that it adds up. So the taps of a kernel, its
    axes before the last two, are added first, one by one: they make one loop that reads `arrays`
    and writes a number for a whole column of taps.

    Args:
      test: elementwise, from entries of `arrays` to bools.
      *arrays: of one shape.

    Returns:
      A float32 scalar, 0 to 1; 0 if there are no entries.
    """
    shape = arrays[0].shape
    taps = shape[-4:-2]
    if 1 < np.prod(taps) <= MAX_TAPS:
        counts = jnp.zeros(shape[:-4] + shape[-2:], jnp.uint16)
        for tap in np.ndindex(taps):
            counts += test(*(x[..., *tap, :, :] for x in arrays)).astype(jnp.uint16)
    else:
        counts = test(*arrays)
    return jnp.sum(counts.astype(jnp.float32)) / max(arrays[0].size, 1)


def shares(test: Callable[..., jax.Array], *arrays: Sequence[jax.Array]) -> list[jax.Array]:
    """The share of each layer; `arrays` are lists with an array per layer."""
    layers = list(zip(*arrays, strict=True))
    if not in_rows(arrays[0]):
        return [share(test, *layer) for layer in layers]
    flags = [test(*layer).astype(jnp.int32) for layer in layers]
    counts = sums(flags, [tuple(range(x.ndim - 1)) for x in flags])
    totals = jnp.sum(counts.values, 1, jnp.int32).astype(jnp.float32)
    entries = np.array([flags[i].size for i in np.argsort(counts.of)])
    ratios = totals / np.maximum(entries, 1).astype(np.float32)
    return [ratios[row] for row in counts.of]
