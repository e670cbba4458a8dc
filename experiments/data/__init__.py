"""Data sets by name, as arrays in memory (`load`) or streamed from disk (`load_streamed`).

    python -c "from experiments import data; print(data.load('digits'))"

Nothing is downloaded. `digits` comes with scikit-learn; `cifar10` and `cifar100` are read where
`python -m experiments.prepare` (or TFDS itself) has put them; any other name is the path of an
image folder ROOT/{train,test}/CLASS/FILE (ROOT/CLASS/FILE if the test is on held-out training
images). ImageNet and folders with images of many sizes are streamed.

Files by task: `cifar_*.py`, `tfds_source.py`, `image_*.py` and `streamed*.py` read images;
`subset.py` and `fingerprint.py` choose and compare them; `batches.py` makes the batches of a step;
`augment.py` crops and flips a batch, and `crops.py` crops a streamed image.
"""

import dataclasses
import difflib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from experiments.data import cifar, fingerprint, image_folder, imagenet, tfds_source
from experiments.data.streamed import StreamedDataset, load_streamed
from experiments.data.subset import (
    SEED,
    balanced_subset,
    notes_of_untested,
    train_and_held_out,
)

__all__ = [
    "NAMES",
    "Dataset",
    "StreamedDataset",
    "balanced_subset",
    "channel_statistics",
    "load",
    "load_streamed",
]

NAMES = ("digits", *cifar.BY_NAME)

# The recipe of the authors' code for CIFAR-10; rounded from the training split's.
_CIFAR10_MEAN = (0.491, 0.482, 0.447)
_CIFAR10_STD = (0.247, 0.243, 0.262)

_DIGITS_TEST = 360  # of 1,797, a fifth


@dataclasses.dataclass(frozen=True, eq=False)  # arrays have no single truth value to compare by
class Dataset:
    """A labelled set of images with its two splits.

    Attributes:
      name: as given to `load`.
      train_images: uint8 (images, height, width, channels).
      train_labels: int32 (images,), indices into `classes`.
      test_images: like `train_images`.
      test_labels: like `train_labels`.
      classes: names of the classes.
      mean: float32 (channels,), mean of the training split's pixels on the scale 0..1.
      std: float32 (channels,), their standard deviation; 1 for a channel that never changes, so
        that dividing by it is safe.
      notes: what a person should know about it, such as files that were left out.
    """

    name: str
    train_images: NDArray[np.uint8]
    train_labels: NDArray[np.int32]
    test_images: NDArray[np.uint8]
    test_labels: NDArray[np.int32]
    classes: tuple[str, ...]
    mean: NDArray[np.float32]
    std: NDArray[np.float32]
    notes: tuple[str, ...] = ()

    @property
    def image_shape(self) -> tuple[int, ...]:
        """(height, width, channels)."""
        return self.train_images.shape[1:]

    @property
    def train_count(self) -> int:
        return len(self.train_labels)

    @property
    def test_count(self) -> int:
        return len(self.test_labels)

    def test_images_at(self, indices: Sequence[int]) -> NDArray[np.uint8]:
        """Some test images: (images, height, width, channels)."""
        return self.test_images[np.asarray(indices, np.intp)]

    def fingerprints(self) -> dict[str, str]:
        """A text per split that changes with its pixels, labels or standardisation."""
        return {
            "train": fingerprint.of_arrays(
                self.train_images, self.train_labels, self.mean, self.std
            ),
            "test": fingerprint.of_arrays(self.test_images, self.test_labels),
        }

    def __repr__(self) -> str:
        return (
            f"Dataset({self.name!r}, train {self.train_images.shape}, "
            f"test {self.test_images.shape}, {len(self.classes)} classes)"
        )


def load(
    name: str,
    *,
    data_dir: str | Path | None = None,
    train_images: int | None = None,
    held_out: int = 0,
) -> Dataset:
    """Loads a data set into memory.

    Args:
      name: 'digits', 'cifar10', 'cifar100', or the path of an image folder.
      data_dir: TFDS's data folder, for the CIFAR sets; None is TFDS's own default
        ($TFDS_DATA_DIR, else ~/tensorflow_datasets).
      train_images: keep so many training images only, the same ones every time and as evenly spread
        over the classes as they allow; a larger subset contains the smaller ones. None keeps all
        that are not held out.
      held_out: if not 0, the test split is this many training images that are not trained on:
        hyperparameters are chosen on them. They are spread over the classes likewise, or, without
        `train_images`, in proportion to the classes' sizes. An image folder then needs no test
        split (what it has is not looked at), and may be ROOT/CLASS/FILE.

    Returns:
      The data set. Mean and std are the whole training split's, whatever `train_images` says.

    Raises:
      ValueError: unknown name (with the nearest ones), a CIFAR set that is not prepared (says what
        to put where), an image folder that breaks a rule, or a `train_images` that the data set
        cannot give.

    >>> load("digits", train_images=100)
    Dataset('digits', train (100, 8, 8, 1), test (360, 8, 8, 1), 10 classes)
    """
    if name == "digits":
        data = _digits()
    elif name in cifar.BY_NAME:
        data = _cifar(cifar.BY_NAME[name], data_dir)
    else:
        data = _image_folder(name, test=held_out == 0)
    if train_images is not None or held_out:
        data = _with_subset(data, train_images, held_out)
    untested = notes_of_untested(data.classes, data.test_labels)
    return dataclasses.replace(data, notes=(*data.notes, *untested))


def channel_statistics(
    images: NDArray[np.uint8],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and standard deviation of each channel over all pixels, on the scale 0..1.

    Sums of integers are exact, and taken in chunks, so that no wider copy of all images is made.
    """
    chunks = np.array_split(images, -(-len(images) // 1_000))
    pixels = images.size // images.shape[-1]
    sums = [chunk.sum((0, 1, 2), dtype=np.int64) for chunk in chunks]
    squares = [np.square(chunk, dtype=np.int64).sum((0, 1, 2)) for chunk in chunks]
    mean = np.sum(sums, axis=0) / pixels
    std = np.sqrt(np.maximum(np.sum(squares, axis=0) / pixels - mean**2, 0))
    std[std == 0] = 255
    return (mean / 255).astype(np.float32), (std / 255).astype(np.float32)


def _with_subset(data: Dataset, train_images: int | None, held_out: int) -> Dataset:
    trained, others = train_and_held_out(
        data.name, data.train_labels, len(data.classes), train_images, held_out
    )
    images, labels = data.train_images, data.train_labels
    kept = dataclasses.replace(data, train_images=images[trained], train_labels=labels[trained])
    if held_out == 0:
        return kept
    return dataclasses.replace(kept, test_images=images[others], test_labels=labels[others])


def _digits() -> Dataset:
    """scikit-learn's 1,797 handwritten digits (UCI Optdigits, test part), 8x8, gray, 17 levels."""
    from sklearn.datasets import (
        load_digits,
    )  # a second, which the other data sets need not wait for
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)  # 64 values 0..16 an image
    pixels = np.round(images * 255 / 16).astype(np.uint8).reshape(-1, 8, 8, 1)
    train_x, test_x, train_y, test_y = train_test_split(
        pixels,
        labels.astype(np.int32),
        test_size=_DIGITS_TEST,
        stratify=labels,
        random_state=SEED,
    )
    classes = tuple(str(digit) for digit in range(10))
    mean, std = channel_statistics(train_x)
    return Dataset("digits", train_x, train_y, test_x, test_y, classes, mean, std)


def _cifar(which: cifar.Cifar, data_dir: str | Path | None) -> Dataset:
    splits, classes = tfds_source.read(which, None if data_dir is None else Path(data_dir))
    if which is cifar.CIFAR10:
        mean, std = np.array(_CIFAR10_MEAN, np.float32), np.array(_CIFAR10_STD, np.float32)
    else:
        mean, std = channel_statistics(splits["train"][0])
    return Dataset(which.name, *splits["train"], *splits["test"], classes, mean, std)


def _image_folder(name: str, *, test: bool) -> Dataset:
    root = Path(name).expanduser()
    if not root.is_dir():
        raise ValueError(_unknown_message(name, is_file=root.is_file()))
    folder = image_folder.scan(root, test=test)
    images, notes = image_folder.read(folder)
    mean, std = channel_statistics(images["train"])
    return Dataset(
        name=name,
        train_images=images["train"],
        train_labels=np.array(folder.labels["train"], np.int32),
        test_images=images["test"],
        test_labels=np.array(folder.labels["test"], np.int32),
        classes=folder.classes,
        mean=mean,
        std=std,
        notes=(*folder.notes, *notes),
    )


def _unknown_message(name: str, *, is_file: bool) -> str:
    if name == imagenet.NAME:
        return f"{name} does not fit in memory: stream it, with --image-size 224"
    nearest = difflib.get_close_matches(name.lower(), NAMES)
    hint = f"; did you mean {' or '.join(nearest)}?" if nearest else ""
    problem = "it is a file" if is_file else "there is no such folder"
    return (
        f"unknown data set {name!r}: it is none of {', '.join(NAMES)}, and no image folder "
        f"ROOT/{{train,test}}/CLASS/FILE either ({problem}){hint}"
    )
