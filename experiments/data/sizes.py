"""How large a data set is, without its images: all that a compiled step depends on."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from experiments.data import Dataset, StreamedDataset, cifar, imagenet, load, load_streamed
from experiments.data.streamed_source import Encoded, Split
from experiments.data.subset import train_and_held_out

# Any will do, but for 0 and 1, with which a compiler need not compute.
_MEAN, _STD = 0.49, 0.247


@dataclass(frozen=True)
class Sizes:
    """A data set's sizes.

    Attributes:
      name: of the data set.
      classes: number of them.
      image_shape: (height, width, channels) of the images that come out.
      train_count: training images.
      streamed: whether they are read while the network trains.
    """

    name: str
    classes: int
    image_shape: tuple[int, ...]
    train_count: int
    streamed: bool


def sizes_of(
    name: str,
    *,
    data_dir: Path | None = None,
    train_images: int | None = None,
    held_out: int = 0,
    image_size: int | None = None,
) -> Sizes:
    """Sizes of a data set by name; arguments are as for `load` and `load_streamed`.

    Those of CIFAR and ImageNet are known. Digits and image folders are read.

    Raises:
      ValueError: as `load` and `load_streamed`.
    """
    known = _known(name, image_size)
    if known is None:
        subset: dict[str, Any] = {"train_images": train_images, "held_out": held_out}
        dataset = (
            load(name, data_dir=data_dir, **subset)
            if image_size is None
            else load_streamed(name, data_dir=data_dir, image_size=image_size, **subset)
        )
        streamed = isinstance(dataset, StreamedDataset)
        return Sizes(name, len(dataset.classes), dataset.image_shape, dataset.train_count, streamed)
    shape, classes, count = known
    labels = np.zeros(count, np.int32)  # which images are taken does not matter
    trained, _ = train_and_held_out(name, labels, classes, train_images, held_out)
    return Sizes(name, classes, shape, len(trained), streamed=image_size is not None)


def _known(name: str, image_size: int | None) -> tuple[tuple[int, ...], int, int] | None:
    """Image shape, number of classes and of training images."""
    if name in cifar.BY_NAME and image_size is None:
        classes = cifar.BY_NAME[name].classes
        return cifar.IMAGE_SHAPE, len(classes), cifar.OFFICIAL_COUNTS["train"]
    if name == imagenet.NAME and image_size is not None:
        return (image_size, image_size, 3), imagenet.CLASSES, imagenet.TRAINING_IMAGES
    return None


def without_images(sizes: Sizes) -> Dataset | StreamedDataset:
    """A data set of these sizes to make a `Feed` of, for steps that are compiled and not run.

    Its images are zeros that take no memory.
    """
    classes = tuple(map(str, range(sizes.classes)))
    if sizes.streamed:
        train = Split(sizes.train_count, _no_image, np.zeros(0, np.int32), str)
        shape = cast(tuple[int, int, int], sizes.image_shape)
        return StreamedDataset(sizes.name, classes, shape, 1, train, train)
    channels = sizes.image_shape[-1]
    return Dataset(
        name=sizes.name,
        train_images=np.broadcast_to(np.uint8(0), (sizes.train_count, *sizes.image_shape)),
        train_labels=np.broadcast_to(np.int32(0), sizes.train_count),
        test_images=np.zeros((1, *sizes.image_shape), np.uint8),
        test_labels=np.zeros(1, np.int32),
        classes=classes,
        mean=np.full(channels, _MEAN, np.float32),
        std=np.full(channels, _STD, np.float32),
    )


def _no_image(index: int) -> Encoded:
    raise LookupError(f"image {index} of a data set that has none")
