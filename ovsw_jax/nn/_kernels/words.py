"""Signs packed into words: 32 channels in a uint32, one bit each."""

from typing import Any

import jax
import jax.numpy as jnp

from ovsw_jax.nn._kernels.features import along_features

WORD_BITS = 32


def pack(signs: jax.Array) -> jax.Array:
    """Packs the last axis, channel 0 into the lowest bit of word 0.

    Args:
      signs: (..., channels), +1 or -1.

    Returns:
      (..., words) uint32, a bit being 1 for +1. Bits that no channel has are 0.

    Raises:
      NotImplementedError: when differentiated. Integers have no derivative in JAX, so a convolution
        that keeps nothing else would silently count its operands as constants.

    >>> pack(jnp.array([1.0, -1.0, 1.0])).tolist()
    [5]
    """
    return _pack(signs)


@jax.custom_jvp
def _pack(signs: jax.Array) -> jax.Array:
    return pack_positive(signs >= 0)


def pack_positive(positive: jax.Array) -> jax.Array:
    """Packs as `pack` does, from a bool for each sign: whether it is +1."""
    channels = positive.shape[-1]
    bits = bits_of_word(channels)
    missing = -channels % bits
    padded = jnp.pad(positive, [(0, 0)] * (positive.ndim - 1) + [(0, missing)])
    grouped = padded.reshape(*positive.shape[:-1], -1, bits)
    powers = along_features(jnp.uint32(1) << jnp.arange(bits, dtype=jnp.uint32), grouped)
    return jnp.sum(jnp.where(grouped, powers, 0), axis=-1, dtype=jnp.uint32)


@_pack.defjvp
def _refuse(*_: Any) -> Any:
    raise NotImplementedError(
        "a BinaryConv that counts bits is differentiable once: it keeps one bit of each sign, and "
        "bits have no derivative. For second derivatives, as Sophia's, give it a sign of your own "
        "around the library's, kernel_sign=lambda w: ovsw.nn.ste_sign(w): it is multiplied then."
    )


def unpack(words: jax.Array, channels: int) -> jax.Array:
    """The signs that were packed.

    Args:
      words: (..., words) uint32.
      channels: how many.

    Returns:
      (..., channels) int32, +1 or -1.

    >>> unpack(jnp.array([5], jnp.uint32), 3).tolist()
    [1, -1, 1]
    """
    words = words[..., None]
    places = along_features(jnp.arange(bits_of_word(channels), dtype=jnp.uint32), words)
    signs = sign_of_bit(words >> places)
    return signs.reshape(*words.shape[:-2], -1)[..., :channels]


def sign_of_bit(words: jax.Array) -> jax.Array:
    """+1 where the lowest bit is 1, else -1: int32."""
    return (words & 1).astype(jnp.int32) * 2 - 1


def bits_of_word(channels: int) -> int:
    """How many bits of each word are in use."""
    return max(min(WORD_BITS, channels), 1)
