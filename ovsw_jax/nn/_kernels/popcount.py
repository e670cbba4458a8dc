"""Convolutions of signs as CPUs do them best: counted bits, and one matrix product.

Two signs have the product -1 where their bits differ, so a sum of products is

    (number of products) - 2 popcount(x xor w),

and one instruction takes 32 of them. The sums are integers: the same, to the last bit, as those of
a convolution in float32. In the gradient of the kernel only one factor is a sign; there the signs
that each tap sees are spread out into the rows of a matrix, which multiplies the cotangent as it
lies in memory. GPUs and TPUs have better units for both.
"""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.xla_metadata import set_xla_metadata

from ovsw_jax.nn._kernels.taps import Taps
from ovsw_jax.nn._kernels.words import WORD_BITS, bits_of_word, pack, sign_of_bit

# Terms are written out one by one: beyond these many, compiling takes too long.
MAX_TERMS = 160
# From this many words on, the words of a tap fill a vector register by themselves.
WORDS_OF_A_VECTOR = 8
# The rows of signs are made for so many images at a time that they take no more than this,
ROW_BYTES = 32 * 2**20
# but in no more parts than these, which are compiled one by one.
MAX_PARTS = 16


def can_count(batch: int, in_features: int, taps: Taps) -> bool:
    """Whether a convolution has a size that the functions here are made for."""
    dimensions = (batch, in_features, *taps.spatial)
    if not all(isinstance(n, int) for n in dimensions):  # symbolic, for export
        return False
    words = -(-in_features // WORD_BITS)
    terms = math.prod(taps.kernel_size) * (1 if words >= WORDS_OF_A_VECTOR else words)
    return min(*dimensions, *taps.outputs) > 0 and terms <= MAX_TERMS


def convolve_words(x: jax.Array, kernel: jax.Array, taps: Taps) -> jax.Array:
    """Sums of products of signs.

    Args:
      x: (batch, *spatial, words) uint32, signs packed over channels.
      kernel: (*kernel_size, in_features, out_features) signs.
      taps: geometry; products with the padding are 0.

    Returns:
      (batch, *spatial', out_features) int16, or int32 where they need it.
    """
    return count_words(x, pack(jnp.moveaxis(kernel, -2, -1)), kernel.shape[-2], taps)


def count_words(x: jax.Array, w: jax.Array, in_features: int, taps: Taps) -> jax.Array:
    """`convolve_words` with a kernel that is packed: (*kernel_size, out_features, words) uint32."""
    with _apart():
        return _sums(x, w, taps=taps, in_features=in_features)


@partial(jax.jit, static_argnames=("taps", "in_features"))
def _sums(x: jax.Array, w: jax.Array, *, taps: Taps, in_features: int) -> jax.Array:
    seen = np.stack([taps.inside(tap) for tap in taps.all()])
    products = np.asarray(in_features * np.sum(seen, axis=0, dtype=np.int32))
    differences = _count_differences(x, w, taps).astype(jnp.int32)
    sums = jnp.asarray(products)[None, ..., None] - 2 * differences
    # Half the bytes, for the backward pass to read again.
    fits = products.max(initial=0) <= np.iinfo(np.int16).max
    return sums.astype(jnp.int16 if fits else jnp.int32)


def _count_differences(x: jax.Array, w: jax.Array, taps: Taps) -> jax.Array:
    padded = taps.pad(x)
    words = x.shape[-1]
    together = words >= WORDS_OF_A_VECTOR
    spatial = tuple(range(x.ndim - 1))  # with the batch
    counts: Any = 0
    for tap in taps.all():
        differ = taps.seen(padded, tap)[..., None, :] ^ jnp.expand_dims(w[tap], spatial)
        if not (inside := taps.inside(tap)).all():
            differ = differ & jnp.where(inside, jnp.uint32(0xFFFFFFFF), 0)[None, ..., None, None]
        bits = jax.lax.population_count(differ)
        counts = counts + (bits if together else sum(bits[..., i] for i in range(words)))
    differences: jax.Array = jnp.sum(counts, -1, dtype=jnp.uint32) if together else counts
    return differences


def kernel_gradient(x: jax.Array, cotangent: jax.Array, in_features: int, taps: Taps) -> jax.Array:
    """Gradient of the kernel.

    Args:
      x: (batch, *spatial, words) uint32, as in `convolve_words`.
      cotangent: (batch, *spatial', out_features) real.
      in_features: channels packed in the words.
      taps: geometry.

    Returns:
      (*kernel_size, in_features, out_features), of the dtype of the cotangent.
    """
    rows = math.prod(taps.kernel_size) * in_features
    image = rows * math.prod(taps.outputs) * cotangent.dtype.itemsize
    parts = _number_of_parts(x.shape[0], max(1, ROW_BYTES // image))
    gradient = jnp.zeros((rows, cotangent.shape[-1]), cotangent.dtype)
    for part_of_x, part_of_cotangent in zip(_cut(x, parts), _cut(cotangent, parts), strict=True):
        with _apart():
            gradient = _add_gradient(
                gradient, part_of_x, part_of_cotangent, in_features=in_features, taps=taps
            )
    return gradient.reshape(*taps.kernel_size, in_features, -1)


def _number_of_parts(batch: int, at_once: int) -> int:
    """Into how many parts to cut a batch for `at_once` images per part: equal ones if few are."""
    least = min(-(-batch // at_once), MAX_PARTS)
    return next((n for n in range(least, min(2 * least, MAX_PARTS)) if batch % n == 0), least)


def _cut(x: jax.Array, parts: int) -> list[jax.Array]:
    """The parts of a batch: of equal size, or the last one smaller.

    Equal parts are interleaved: where a batch is sharded, each device then has its share of every
    part, and none has to send its images to others.
    """
    if x.shape[0] % parts:
        images = -(-x.shape[0] // parts)
        return [x[start : start + images] for start in range(0, x.shape[0], images)]
    interleaved = x.reshape(-1, parts, *x.shape[1:])
    return [interleaved[:, part] for part in range(parts)]


@partial(jax.jit, static_argnames=("taps", "in_features"))
def _add_gradient(
    gradient: jax.Array, x: jax.Array, cotangent: jax.Array, *, in_features: int, taps: Taps
) -> jax.Array:
    with _apart():
        words, mask = _words_of_taps(x, taps=taps)
    signs = _rows(words, mask, in_features, cotangent.dtype)
    return gradient + signs @ cotangent.reshape(-1, cotangent.shape[-1])


@partial(jax.jit, static_argnames="taps")
def _words_of_taps(x: jax.Array, *, taps: Taps) -> tuple[jax.Array, jax.Array]:
    """The words that each tap sees, (taps, words, positions), and -1 where it sees any, else 0."""
    padded = taps.pad(x)
    seen = [jnp.moveaxis(taps.seen(padded, tap), -1, 0) for tap in taps.all()]
    words = jnp.stack(seen).reshape(len(seen), x.shape[-1], -1)
    inside = np.stack([taps.inside(tap).ravel() for tap in taps.all()])
    mask = jnp.where(inside, jnp.int32(-1), 0)[:, None]
    mask = jnp.broadcast_to(mask, (len(seen), x.shape[0], inside.shape[1]))
    return words, mask.reshape(len(seen), 1, 1, -1)


def _rows(
    words: jax.Array, mask: jax.Array, in_features: int, dtype: jax.typing.DTypeLike
) -> jax.Array:
    """The signs that each tap sees, 0 for the padding: (taps * channels, positions)."""
    places = jnp.arange(bits_of_word(in_features), dtype=jnp.uint32)[None, None, :, None]
    signs = sign_of_bit(words[:, :, None] >> places) & mask
    signs = signs.reshape(len(words), -1, words.shape[-1])[:, :in_features]
    return signs.astype(dtype).reshape(-1, words.shape[-1])


def _apart() -> Any:
    """Keeps XLA from fusing what is called within it into the operations that use its results.

    Each of those would compute it again instead of reading it from memory.
    """
    return set_xla_metadata(inlineable="false")
