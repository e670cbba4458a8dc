"""A data set of noise in memory, and steps whose loss some of its images spoil."""

import jax.numpy as jnp
import numpy as np

from experiments.data import Dataset
from experiments.training.losses import cross_entropy
from experiments.training.step import Steps

BAD = 255  # the value of every pixel of an image that makes the loss NaN; 0 when standardised


def dataset(images, test_images=21, *, shape=(8, 8, 1), classes="abc", bad=()):
    """Random images and labels; those with the numbers `bad` are all of the value BAD."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, BAD, (images, *shape), dtype=np.uint8)
    pixels[list(bad)] = BAD
    labels = rng.integers(0, len(classes), images).astype(np.int32)
    ones = np.ones(shape[-1], np.float32)
    test = pixels[:test_images], labels[:test_images]
    return Dataset("tiny", pixels, labels, *test, tuple(classes), ones, ones)


class Spoilt(Steps):
    """Steps whose loss a bad image makes NaN, of members with a learning rate above 0.05 only."""

    def _loss(self, logits, labels, images, taught, values):
        bad = jnp.any(jnp.all(images >= 0, (1, 2, 3)))  # others are below: see `dataset`
        hit = bad & (values.get("learning_rate", 1.0) > 0.05)
        return cross_entropy(logits, labels) * jnp.where(hit, jnp.nan, 1.0)
