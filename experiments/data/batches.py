"""The images of a step: picked from arrays on the devices, or streamed from disk.

The training loop draws from `batches`. Inside the compiled step, the pure function `images` turns
one batch into what the network sees. `test_batches` gives uint8 images of one shape; images that
only fill up the last batch have label -1.
"""

import contextlib
from collections.abc import Generator, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.config import Config
from experiments.data import Dataset, StreamedDataset
from experiments.data.augment import crop_and_flip, flip_and_light, standardise

EVALUATION_BATCH = 500

Batch = tuple[Any, Any]


class Resident:
    """All images are on the devices; each member picks its batches there, in an order of its own.

    The last few images, which fill no batch, are left out until the next epoch's order.

    Attributes, which `Streamed` has too:
      streamed: whether batches come from disk, of which a process reads its own rows.
      axes: of a batch: m for an array that each member has, a for one that all share.
      resident: arrays that stay on the devices and are an argument of every step.
      steps_per_epoch: batches in an epoch.
      mean: of the channels; std likewise.
    """

    streamed = False
    axes = "ma"

    def __init__(self, dataset: Dataset, config: Config):
        # Data goes into compiled functions as an argument: a constant would be compiled in.
        # An image is a row: a TPU would lay the whole data set out anew in every step to pick from
        # an array whose last axis is as short as that of channels.
        images = dataset.train_images
        self._image_shape, rows = images.shape[1:], (len(images), images[0].size)
        self.resident = (images.reshape(rows), dataset.train_labels)
        self._dataset = dataset
        self.mean, self.std = jnp.asarray(dataset.mean), jnp.asarray(dataset.std)
        self.steps_per_epoch = len(dataset.train_labels) // config.batch_size
        self._batch_size, self._augment = config.batch_size, config.augment
        self._test = _padded_batches(dataset.test_images, dataset.test_labels)

    def shuffle(self, key: jax.Array) -> jax.Array:
        """What one member's epoch is drawn from: (steps_per_epoch, batch) indices; pure."""
        order = jax.random.permutation(key, len(self.resident[1]))
        used = order[: self.steps_per_epoch * self._batch_size]
        return used.reshape(self.steps_per_epoch, self._batch_size)

    def batches(
        self, order: jax.Array, seeds: Sequence[int], epoch: int, start: int, rows: slice
    ) -> Generator[Batch]:
        """The batches of an epoch from step `start` on, one per step.

        Here a batch is the members' `order` from `shuffle` and the number of the step. A
        caller that stops early closes the generator.
        """
        yield from ((order, step) for step in range(start, self.steps_per_epoch))

    def batch_of(self, order: Any) -> Batch:
        """A batch as `batches` gives it, from an order or its shape; nothing is read from disk."""
        return order, 0

    def images(self, key: jax.Array, batch: Batch, resident: Any) -> tuple[jax.Array, jax.Array]:
        """Augmented and standardised images and their labels, for one member; pure."""
        order, step = batch
        picked = order[step]
        images = resident[0][picked].reshape(-1, *self._image_shape)
        images = standardise(images, self.mean, self.std)
        if self._augment:
            images = crop_and_flip(key, images)
        return images, resident[1][picked]

    def few(self, count: int) -> np.ndarray:
        """The same uint8 training images at each call, of all classes if sorted by class."""
        images = self._dataset.train_images
        return images[np.linspace(0, len(images) - 1, count).astype(int)]

    def test_batches(self, rows: slice) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Every test image once; of streamed batches only `rows`."""
        return zip(*self._test, strict=True)


class Streamed:
    """Images that workers decode and crop while the network trains; members share them."""

    streamed = True
    axes = "aa"
    resident = ()

    def __init__(self, dataset: StreamedDataset, config: Config):
        self.mean, self.std = jnp.asarray(dataset.mean), jnp.asarray(dataset.std)
        self.steps_per_epoch = dataset.train_count // config.batch_size
        self._dataset, self._batch_size = dataset, config.batch_size

    def shuffle(self, key: jax.Array) -> jax.Array:
        """Nothing: the order follows from seed and epoch."""
        return jnp.zeros((0,), jnp.int32)

    def batches(
        self, order: jax.Array, seeds: Sequence[int], epoch: int, start: int, rows: slice
    ) -> Generator[Batch]:
        """uint8 crops and labels, in an order drawn from the first seed and the epoch."""
        return self._dataset.train_batches(seeds[0], epoch, self._batch_size, start, rows)

    def batch_of(self, order: Any) -> Batch:
        """The shape of a batch of all processes."""
        images = (self._batch_size, *self._dataset.image_shape)
        return (
            jax.ShapeDtypeStruct(images, np.uint8),
            jax.ShapeDtypeStruct(images[:1], np.int32),
        )

    def images(self, key: jax.Array, batch: Batch, resident: Any) -> tuple[jax.Array, jax.Array]:
        pixels = flip_and_light(key, batch[0].astype(jnp.float32) / 255)
        return (pixels - self.mean) / self.std, batch[1]

    def few(self, count: int) -> np.ndarray:
        # The crops of epoch 0, which no training has.
        with contextlib.closing(self._dataset.train_batches(0, 0, count)) as batches:
            return next(batches)[0]

    def test_batches(self, rows: slice) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        return self._dataset.test_batches(self._batch_size, rows)


Feed = Resident | Streamed


def feed_of(dataset: Dataset | StreamedDataset, config: Config) -> Feed:
    """The feed for a data set."""
    if isinstance(dataset, Dataset):
        return Resident(dataset, config)
    return Streamed(dataset, config)


def _padded_batches(
    images: np.ndarray, labels: np.ndarray
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Batches of one size; what fills up the last one has label -1."""
    batch = min(EVALUATION_BATCH, len(labels))
    missing = -len(labels) % batch
    images = np.concatenate([images, np.zeros((missing, *images.shape[1:]), images.dtype)])
    labels = np.concatenate([labels, np.full(missing, -1, labels.dtype)])
    count = len(labels) // batch
    return np.split(images, count), np.split(labels, count)
