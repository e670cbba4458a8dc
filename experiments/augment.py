"""Images as the network sees them: standardised, and for training cropped and flipped."""

import jax
import jax.numpy as jnp

PADDING = 4  # pixels, as in the recipes for CIFAR


def standardise(images: jax.Array, mean: jax.Array, std: jax.Array) -> jax.Array:
    """uint8 (..., channels) to float32 with zero mean and unit deviation a channel."""
    return (images.astype(jnp.float32) / 255 - mean) / std


def crop_and_flip(key: jax.Array, images: jax.Array) -> jax.Array:
    """Shifts every image by up to 4 pixels, filling with zeros, and flips half of them.

    Args:
      key: random key of the batch.
      images: (batch, height, width, channels), standardised or not.
    """
    batch, height, width, _ = images.shape
    shift_key, flip_key = jax.random.split(key)
    corners = jax.random.randint(shift_key, (batch, 2), 0, 2 * PADDING + 1)
    pad = (PADDING, PADDING)
    padded = jnp.pad(images, ((0, 0), pad, pad, (0, 0)))
    rows = corners[:, 0, None] + jnp.arange(height)
    columns = corners[:, 1, None] + jnp.arange(width)
    flipped = jax.random.bernoulli(flip_key, 0.5, (batch, 1))
    columns = jnp.where(flipped, columns[:, ::-1], columns)
    return padded[jnp.arange(batch)[:, None, None], rows[:, :, None], columns[:, None, :]]
