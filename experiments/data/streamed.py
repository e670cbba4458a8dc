"""Images that are read from disk while a network trains: ImageNet, and folders of any sizes.

    python -c "from experiments import data; print(data.load_streamed('FOLDER', image_size=224))"

Threads decode, crop and resize single images, one more puts them together to batches; the training
thread takes batches that are finished. Pillow lets other threads run while it decodes and resizes:
with 500x375 JPEGs on two cores, two threads read 1.2 k images/s where one read 0.65 k, and Grain's
worker processes, which copy every batch to shared memory, 0.8 k.
"""

import dataclasses
import difflib
import os
import threading
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.data import cifar, crops, image_file, imagenet
from experiments.data.streamed_source import Source, Split, open_folder
from experiments.data.subset import notes_of_untested, train_and_held_out

Batch = tuple[NDArray[np.uint8], NDArray[np.int32]]  # images (B, size, size, 3), labels (B,)

# Of ImageNet's training pixels, scale 0..1, red green blue, as torchvision publishes them for its
# pretrained networks (https://docs.pytorch.org/vision/stable/models.html).
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

CENTRE = 0.875  # side of the test crop / shorter side of the resized image: 224 / 256
NO_LABEL = -1  # of the places that fill up the last test batch

_IN_MEMORY = ("digits", *cifar.BY_NAME)

_BATCHES_AHEAD = 2  # finished ones that wait for the training thread
_IMAGES_AHEAD = 4  # a worker, beyond those


@dataclasses.dataclass(frozen=True, eq=False)
class StreamedDataset:
    """A labelled set of images on disk, with its two splits.

    Attributes:
      name: as given to `load_streamed`.
      classes: names of the classes.
      image_shape: (height, width, 3) of every image that comes out; height and width are equal.
      workers: threads that decode.
      notes: what a person should know about it, such as files that were left out.
    """

    name: str
    classes: tuple[str, ...]
    image_shape: tuple[int, int, int]
    workers: int
    _train: Split = dataclasses.field(repr=False)
    _test: Split = dataclasses.field(repr=False)
    notes: tuple[str, ...] = ()

    @property
    def mean(self) -> NDArray[np.float32]:
        """float32 (3,), ImageNet's mean of each channel, on the scale 0..1."""
        return np.array(MEAN, np.float32)

    @property
    def std(self) -> NDArray[np.float32]:
        """float32 (3,), ImageNet's standard deviation of each channel, on the scale 0..1."""
        return np.array(STD, np.float32)

    @property
    def train_count(self) -> int:
        return self._train.count

    @property
    def test_count(self) -> int:
        return self._test.count

    def fingerprints(self) -> dict[str, str]:
        """A text per split that changes with its images.

        For a folder it depends on the names and sizes of all files, used or not; for imagenet2012
        on the version, the number of images and the bytes of the prepared set.
        """
        return {"train": self._train.fingerprint(), "test": self._test.fingerprint()}

    def __repr__(self) -> str:
        return (
            f"StreamedDataset({self.name!r}, train {(self.train_count, *self.image_shape)}, "
            f"test {(self.test_count, *self.image_shape)}, {len(self.classes)} classes)"
        )

    def train_batches(
        self,
        seed: int,
        epoch: int,
        batch_size: int,
        start: int = 0,
        rows: slice = slice(None),
    ) -> Generator[Batch]:
        """The training images of one epoch, shuffled, each cropped at random and resized.

        Order and crops depend on `seed` and `epoch` alone. Images that do not fill a last batch are
        left out.

        Args:
          seed: of the run, at least 0.
          epoch: its number, at least 0.
          batch_size: images in a batch, at most `train_count`.
          start: number of the first batch to read.
          rows: of each batch that are read; the others belong to other processes.

        Returns:
          An iterator over (uint8 (rows, height, width, 3), int32 (rows,)). Its `close()` stops the
          workers; at its end and at an error they stop by themselves.

        Raises:
          ValueError: `batch_size` does not fit; while iterating, if an image can't be decoded.
        """
        _check_batch_size(batch_size)
        if batch_size > self.train_count:
            raise ValueError(
                f"batch_size={batch_size:,} is more than the {self.train_count:,} training images "
                f"of {self.name!r}: lower it"
            )
        order = np.random.default_rng((seed, epoch, 0)).permutation(self.train_count)
        order = order[: self.train_count // batch_size * batch_size]
        order = order.reshape(-1, batch_size)[start:, rows]
        places = order.reshape(-1)
        size = self.image_shape[0]

        def load(position: int) -> tuple[NDArray[np.uint8], int]:
            index = int(places[position])
            rng = np.random.default_rng((seed, epoch, 1, index))
            image = self._train.read(index)
            box = lambda width, height: crops.random_box(rng, width, height)  # noqa: E731
            return image_file.decode_crop(image.file, image.name, box, size), image.label

        return _batches(load, len(places), order.shape[1], self.workers)

    def test_batches(self, batch_size: int, rows: slice = slice(None)) -> Generator[Batch]:
        """Every test image once, in order: the central square, resized; like `train_batches`.

        The shorter side is resized to `size / 0.875`, and the central square of side `size` is cut
        out. Zeros with label -1 fill up the last batch.
        """
        _check_batch_size(batch_size)
        filled = -(-self.test_count // batch_size) * batch_size
        places = np.arange(filled).reshape(-1, batch_size)[:, rows]
        indices = places.reshape(-1)

        def load(position: int) -> tuple[NDArray[np.uint8], int]:
            index = int(indices[position])
            if index >= self.test_count:
                return np.zeros(self.image_shape, np.uint8), NO_LABEL
            return self._test_image(index)

        return _batches(load, len(indices), places.shape[1], self.workers)

    def test_images_at(self, indices: Sequence[int]) -> NDArray[np.uint8]:
        """Some test images, as the network sees them: (images, height, width, 3).

        Raises:
          ValueError: if one can't be decoded.
        """
        found = [self._test_image(index)[0] for index in indices]
        return np.array(found, np.uint8).reshape(-1, *self.image_shape)

    def _test_image(self, index: int) -> tuple[NDArray[np.uint8], int]:
        size = self.image_shape[0]
        image = self._test.read(index)
        return (
            image_file.decode_centre(image.file, image.name, shorter_side(size), size),
            image.label,
        )


def shorter_side(size: int) -> int:
    """To how many pixels the shorter side of a test image is resized, for a crop of `size`."""
    return round(size / CENTRE)


def load_streamed(
    name: str,
    *,
    image_size: int,
    data_dir: str | Path | None = None,
    train_images: int | None = None,
    held_out: int = 0,
    workers: int | None = None,
) -> StreamedDataset:
    """Opens a data set whose images stay on disk and are cropped to one size while they are read.

    Args:
      name: 'imagenet2012', or the path of an image folder ROOT/{train,test}/CLASS/FILE whose images
        may have any sizes; with `held_out` also ROOT/train/CLASS/FILE or ROOT/CLASS/FILE.
      image_size: side of the square images that come out, in pixels.
      data_dir: TFDS's data folder, for imagenet2012; None is TFDS's own default
        ($TFDS_DATA_DIR, else ~/tensorflow_datasets).
      train_images: as for `load`; of imagenet2012, whose labels are not known before an image is
        read, the draw is one over all images instead of one class by class.
      held_out: as for `load`, drawn in the same way; the test split is then ignored.
      workers: threads that decode; None is one for every core this process may run on. They change
        nothing but the speed.
    """
    for option, value in (("image_size", image_size), ("workers", workers)):
        if value is not None and value < 1:
            raise ValueError(f"{option}={value} is not at least 1")
    source = _open(name, None if data_dir is None else Path(data_dir), test=held_out == 0)
    trained, others = train_and_held_out(
        name, source.train.labels, len(source.classes), train_images, held_out
    )
    test = source.train.subset(others) if source.test is None else source.test
    untested = notes_of_untested(source.classes, test.labels) if source.labelled else ()
    return StreamedDataset(
        name=name,
        classes=source.classes,
        image_shape=(image_size, image_size, 3),
        workers=workers or _cores(),
        _train=source.train.subset(trained),
        _test=test,
        notes=(*source.notes, *untested),
    )


def _open(name: str, data_dir: Path | None, *, test: bool) -> Source:
    if name == imagenet.NAME:
        return imagenet.open_source(data_dir, test=test)
    root = Path(name).expanduser()
    if root.is_dir():
        return open_folder(root, test=test)
    if name in _IN_MEMORY:
        raise ValueError(
            f"{name!r} is held in memory, uncropped: omit --image-size. Only "
            f"{imagenet.NAME} and image folders are streamed"
        )
    near = difflib.get_close_matches(name.lower(), [imagenet.NAME, "imagenet"])
    hint = f"; did you mean {imagenet.NAME}?" if near else ""
    problem = "it is a file" if root.is_file() else "there is no such folder"
    raise ValueError(
        f"unknown data set {name!r}: only {imagenet.NAME} and image folders "
        f"ROOT/{{train,test}}/CLASS/FILE are streamed ({problem}){hint}"
    )


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _check_batch_size(batch_size: int) -> None:
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size} is not at least 1")


def _batches(
    load: Callable[[int], tuple[NDArray[np.uint8], int]], count: int, batch_size: int, workers: int
) -> Generator[Batch]:
    """Calls `load` on 0, 1, ... in `workers` threads; yields what it returns, in order."""
    import grain  # more than a second, which data sets in memory need not wait for

    def put_together(examples: Sequence[tuple[NDArray[np.uint8], int]]) -> Batch:
        images, labels = zip(*examples, strict=True)
        return np.stack(images), np.array(labels, np.int32)

    stopped = threading.Event()

    def load_unless_stopped(index: int) -> tuple[NDArray[np.uint8], int]:
        if stopped.is_set():  # closing waits for the batch that is being put together
            raise InterruptedError
        return load(index)

    image_file.silence_pillow()
    options = grain.ReadOptions(num_threads=workers, prefetch_buffer_size=_IMAGES_AHEAD * workers)
    images: Any = grain.MapDataset.range(count).map(load_unless_stopped).to_iter_dataset(options)
    batches = images.batch(batch_size, batch_fn=put_together)
    ahead = grain.experimental.ThreadPrefetchIterDataset(
        batches, prefetch_buffer_size=_BATCHES_AHEAD
    )
    iterator = iter(ahead)
    try:
        yield from iterator
    finally:
        stopped.set()
        iterator.close()
