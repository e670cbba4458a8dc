"""Test images that trained networks get wrong and right, for a reader to look at.

RUN/examples/OPTIMIZER-seedSEED.npz holds `places` in the test set and `images`, uint8
(images, height, width, channels), of at most `SIDE` pixels a side. First come wrong answers, the
surest first, then right ones, the least sure first; `experiments.run.predictions` has the answers.
"""

import zipfile
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from experiments.run import predictions
from experiments.run.atomic_files import write_arrays, writing
from experiments.run.predictions import Predictions

FOLDER = "examples"
EACH = 12  # wrong ones and right ones
SIDE = 96  # pixels
MOST_BYTES = 2**24  # of a file that is read: it may be untrusted


class Examples(NamedTuple):
    """Test images with their places in the test set."""

    places: NDArray[np.int64]  # (images,)
    images: NDArray[np.uint8]  # (images, height, width, channels)


class HasTestImages(Protocol):
    """What is asked of a data set."""

    @property
    def test_count(self) -> int:
        """Number of test images."""

    def test_images_at(self, indices: list[int]) -> NDArray[np.uint8]:
        """(images, height, width, channels)."""


def file_of(run: Path, name: str) -> Path:
    """The file with the examples of one training, named as its predictions are."""
    return run / FOLDER / f"{name}.npz"


def chosen(found: Predictions) -> list[int]:
    """Places of the wrong answers of highest probability, then the right ones of lowest."""
    sure = found.probability.astype(np.float32)
    right = found.label == found.predicted
    order = np.argsort(-sure, kind="stable")
    wrong, barely_right = order[~right[order]][:EACH], order[right[order]][::-1][:EACH]
    return [*wrong.tolist(), *barely_right.tolist()]


def keep(run: Path, dataset: HasTestImages) -> None:
    """Writes the examples of every training that has predictions, unless they are there.

    Raises:
      ValueError: if an image or the predictions can't be read, or are of another test set.
      WriteError: if they can't be written.
    """
    for path in sorted((run / predictions.FOLDER).glob("[!.]*.npz")):
        file = file_of(run, path.stem)
        if file.exists():
            continue
        answered = predictions.read(path)
        if len(answered.label) != dataset.test_count:
            raise ValueError(
                f"{path} holds {len(answered.label):,} answers, and there are "
                f"{dataset.test_count:,} test images: it is of another run. Remove it."
            )
        places = chosen(answered)
        images = _small(dataset, places)
        with writing(file.parent, run):
            file.parent.mkdir(exist_ok=True)
        found = Examples(np.array(places, np.int64), images)
        write_arrays(file, run, found._asdict(), compressed=True)


def read(path: Path) -> Examples:
    """What `keep` wrote.

    Raises:
      OSError: if there is no such file.
      ValueError: if it holds anything else.
    """
    with path.open("rb") as file:
        try:
            _check_sizes(file)
            with np.load(file, allow_pickle=False) as arrays:
                found = Examples(arrays["places"], arrays["images"])
        except Exception as error:  # zipfile, zlib and NumPy raise many kinds
            raise ValueError(f"{path} can't be read: {error}") from error
    places, images = found
    fits = places.dtype.kind == "i" and images.dtype == np.uint8 and images.ndim == 4
    if not fits or places.shape != images.shape[:1] or images.shape[-1] not in (1, 3):
        raise ValueError(
            f"{path} holds places {places.dtype} {places.shape} and images {images.dtype} "
            f"{images.shape}, they must be int64 (images,) and uint8 (images, height, width, 1 or "
            "3)"
        )
    return found


def _check_sizes(file: BinaryIO) -> None:
    """Raises ValueError for a file that would unpack to more than any run writes."""
    with zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            if member.file_size > MOST_BYTES:
                raise ValueError(f"{member.filename} has {member.file_size:,} bytes")
    file.seek(0)


def _small(dataset: HasTestImages, places: list[int]) -> NDArray[np.uint8]:
    images = dataset.test_images_at(places)
    height, width = images.shape[1:3]
    if max(height, width) <= SIDE:
        return images
    shrink = SIDE / max(height, width)
    size = max(1, round(width * shrink)), max(1, round(height * shrink))
    shown = [Image.fromarray(x[..., 0] if x.shape[-1] == 1 else x).resize(size) for x in images]
    return np.array([np.asarray(x) for x in shown], np.uint8).reshape(
        -1, *size[::-1], images.shape[-1]
    )
