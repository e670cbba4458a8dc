"""Images as the network sees them: standardised; in training cropped, flipped, lighting varied."""

import jax
import jax.numpy as jnp

PADDING = 4  # pixels, as in the recipes for CIFAR

# Principal components of the RGB values of ImageNet's training pixels, scale 0..1: the method is
# A. Krizhevsky et al., "ImageNet Classification with Deep Convolutional Neural Networks", 2012,
# section 4.1; the numbers are those that S. Gross and M. Wilber published with fb.resnet.torch,
# 2016. A column of the matrix is a component; its rows are red, green, blue.
COLOUR_EIGENVALUES = (0.2175, 0.0188, 0.0045)
COLOUR_EIGENVECTORS = (
    (-0.5675, 0.7192, 0.4009),
    (-0.5808, -0.0045, -0.8140),
    (-0.5836, -0.6948, 0.4203),
)


def standardise(images: jax.Array, mean: jax.Array, std: jax.Array) -> jax.Array:
    """uint8 (..., channels) to float32 with zero mean and unit deviation per channel."""
    return (images.astype(jnp.float32) / 255 - mean) / std


def crop_and_flip(key: jax.Array, images: jax.Array) -> jax.Array:
    """Shifts every image by up to 4 pixels, filling with zeros, and flips half of them.

    `images` are (batch, height, width, channels), standardised or not.
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


def flip_and_light(key: jax.Array, images: jax.Array, *, std: float = 0.1) -> jax.Array:
    """Flips half of the images and shifts the colour of each along ImageNet's components.

    All pixels of an image are shifted by sum_i e_i * l_i * a_i with the components e_i, their
    eigenvalues l_i, and a_i drawn for the image from a normal distribution of deviation `std`.

    Args:
      key: random key of the batch.
      images: floating (batch, height, width, 3), RGB on the scale 0..1, not standardised.
      std: deviation of the a_i; 0 leaves the colours as they are.

    Returns:
      Like `images`; the shift can lead out of 0..1.
    """
    flip_key, light_key = jax.random.split(key)
    flipped = jax.random.bernoulli(flip_key, 0.5, (len(images), 1, 1, 1))
    images = jnp.where(flipped, images[:, :, ::-1], images)
    amounts = std * jax.random.normal(light_key, (len(images), 3), images.dtype)
    weights = (amounts * jnp.array(COLOUR_EIGENVALUES, images.dtype)).T[:, :, None]
    first, second, third = weights * jnp.array(COLOUR_EIGENVECTORS, images.dtype).T[:, None, :]
    # Added one by one: accelerators round a matrix product to fewer bits, and jaxlib 0.10.2
    # compiled a product summed over so short an axis wrongly for the CPU, from 911 images on.
    shift = first + second + third
    return images + shift[:, None, None, :]
