"""Where streamed images come from: encoded images by number, from files or from records."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from experiments.data import fingerprint, image_folder


class Encoded(NamedTuple):
    """One image as it is stored.

    Attributes:
      file: path of an image file, or its bytes.
      name: what error messages call it; None is the path.
      label: its class.
    """

    file: Path | bytes
    name: str | None
    label: int


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """The images of a split.

    Attributes:
      count: how many there are.
      read: number -> image; may be called in several threads at once.
      labels: int32 (count,), for choosing subsets; all 0 if they are known only with the images.
      fingerprint: of all images of the set, also for a subset.
    """

    count: int
    read: Callable[[int], Encoded]
    labels: NDArray[np.int32]
    fingerprint: Callable[[], str]

    def subset(self, indices: NDArray[np.intp]) -> "Split":
        """These images alone, in this order."""
        return dataclasses.replace(
            self,
            count=len(indices),
            read=lambda i: self.read(int(indices[i])),
            labels=self.labels[indices],
        )


@dataclasses.dataclass(frozen=True)
class Source:
    """A data set on disk.

    Attributes:
      classes: names of the classes.
      train: its training split.
      test: its test split; None if it is not wanted.
      labelled: whether the splits have labels.
      notes: what a person should know about it.
    """

    classes: tuple[str, ...]
    train: Split
    test: Split | None
    labelled: bool
    notes: tuple[str, ...] = ()


def open_folder(root: Path, *, test: bool) -> Source:
    """An image folder, with its test split or without; see `image_folder.scan` for its rules."""
    folder = image_folder.scan(root, test=test)
    train, tested = (_files(folder.files[s], folder.labels[s]) for s in image_folder.SPLITS)
    return Source(
        folder.classes, train, tested if test else None, labelled=True, notes=folder.notes
    )


def _files(files: Sequence[Path], labels: Sequence[int]) -> Split:
    def read(index: int) -> Encoded:
        return Encoded(files[index], None, labels[index])

    return Split(len(files), read, np.array(labels, np.int32), lambda: fingerprint.of_files(files))
