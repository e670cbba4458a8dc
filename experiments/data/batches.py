"""Where a step's images come from: all of them on the devices, or a stream from disk.

Both feeds have `batches`, which the training loop draws from; `images`, pure, which makes of one
batch what the network sees, inside the compiled step; and `test_batches`, uint8 images of one shape
with label -1 where the last batch is filled up.
"""

from collections.abc import Generator, Iterator, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from experiments.config import Config
from experiments.data import Dataset, StreamedDataset
from experiments.data.augment import crop_and_flip, flip_and_light, standardise

EVALUATION_BATCH = 500

Batch = tuple[Any, Any]


class Feed(Protocol):
    """What `Steps` needs to know of the data."""

    streamed: bool  # batches come from disk, and a process reads its own rows of them
    axes: str  # of a batch: m for an array that each member has, a for one that all share
    resident: Any  # arrays that stay on the devices and are an argument of every step
    steps_per_epoch: int
    mean: jax.Array
    std: jax.Array

    def shuffle(self, key: jax.Array) -> jax.Array:
        """What an epoch's batches are drawn from, for one member; pure."""

    def batches(
        self, order: jax.Array, seeds: Sequence[int], epoch: int, start: int, rows: slice
    ) -> Generator[Batch]:
        """The batches of an epoch, one a step, from step `start` on; `order` is the members'.

        Of streamed ones only `rows`.
        Whoever stops before the end closes the generator.
        """

    def images(self, key: jax.Array, batch: Batch, resident: Any) -> tuple[jax.Array, jax.Array]:
        """Augmented and standardised images and their labels, for one member; pure."""

    def test_batches(self, rows: slice) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Every test image once; of streamed batches only `rows`."""


class Resident:
    """All images on the devices; a step picks its batch there, in an order of each member's own.

    The last few images that fill no batch wait for another epoch's order.
    """

    streamed = False
    axes = "ma"

    def __init__(self, dataset: Dataset, config: Config):
        """Keeps the test images in batches of one size; the training images are `resident`."""
        # Data goes into compiled functions as an argument: a constant would be compiled in.
        self.resident = (dataset.train_images, dataset.train_labels)
        self.mean, self.std = jnp.asarray(dataset.mean), jnp.asarray(dataset.std)
        self.steps_per_epoch = len(dataset.train_labels) // config.batch_size
        self._batch_size, self._augment = config.batch_size, config.augment
        self._test = _padded_batches(dataset.test_images, dataset.test_labels)

    def shuffle(self, key: jax.Array) -> jax.Array:
        """(steps_per_epoch, batch) indices."""
        order = jax.random.permutation(key, len(self.resident[1]))
        used = order[: self.steps_per_epoch * self._batch_size]
        return used.reshape(self.steps_per_epoch, self._batch_size)

    def batches(
        self, order: jax.Array, seeds: Sequence[int], epoch: int, start: int, rows: slice
    ) -> Generator[Batch]:
        """The order and the number of each step."""
        yield from ((order, step) for step in range(start, self.steps_per_epoch))

    def images(self, key: jax.Array, batch: Batch, resident: Any) -> tuple[jax.Array, jax.Array]:
        """Picked, standardised and, if the config says so, cropped and flipped."""
        order, step = batch
        picked = order[step]
        images = standardise(resident[0][picked], self.mean, self.std)
        if self._augment:
            images = crop_and_flip(key, images)
        return images, resident[1][picked]

    def test_batches(self, rows: slice) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """In batches of at most 500."""
        return zip(*self._test, strict=True)


class Streamed:
    """Images that workers decode and crop while the network trains; members share them."""

    streamed = True
    axes = "aa"
    resident = ()

    def __init__(self, dataset: StreamedDataset, config: Config):
        """Opens nothing yet."""
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

    def images(self, key: jax.Array, batch: Batch, resident: Any) -> tuple[jax.Array, jax.Array]:
        """Flipped, lit and standardised."""
        pixels = flip_and_light(key, batch[0].astype(jnp.float32) / 255)
        return (pixels - self.mean) / self.std, batch[1]

    def test_batches(self, rows: slice) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """In batches as large as those of training."""
        return self._dataset.test_batches(self._batch_size, rows)


def feed_of(dataset: Dataset | StreamedDataset, config: Config) -> Feed:
    """The feed for a data set."""
    kind: Any = Resident if isinstance(dataset, Dataset) else Streamed
    return kind(dataset, config)


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
