"""What is prepared: an image folder or an official archive, as one kind of stream of examples."""

import dataclasses
import difflib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from experiments.data import cifar, cifar_archive, image_file, image_folder
from experiments.data.cifar import Cifar
from experiments.data.subset import notes_of_untested

Example = tuple[NDArray[np.uint8], dict[str, int]]  # pixels (32, 32, 3) RGB; label name -> label


@dataclasses.dataclass(frozen=True)
class Source:
    """Where examples come from.

    Attributes:
      counts: number of examples of each split.
      examples: split -> its examples, in a fixed order.
      notes: what a person should know about this source beside a result.
    """

    counts: Mapping[str, int]
    examples: Callable[[str], Iterator[Example]]
    notes: tuple[str, ...] = ()


def open_source(data: Cifar, path: Path) -> Source:
    """Opens an image folder or an official binary archive of `data`.

    Raises:
      ValueError: there is nothing at `path`, or it breaks a rule of its kind.
    """
    if path.is_dir():
        return _folder_source(data, path)
    if path.is_file():
        return _archive_source(data, path)
    raise ValueError(
        f"SOURCE {path} does not exist: give an image folder ROOT/{{train,test}}/CLASS/FILE or the "
        f"official archive {data.archive} ({data.url})"
    )


def _archive_source(data: Cifar, path: Path) -> Source:
    records = cifar_archive.read(data, path)
    return Source(
        counts={split: len(rows) for split, rows in records.items()},
        examples=lambda split: cifar_archive.examples(data, records[split]),
    )


def _folder_source(data: Cifar, path: Path) -> Source:
    folder = image_folder.scan(path)
    _check_classes(data, folder)
    counts = {split: len(files) for split, files in folder.files.items()}

    def examples(split: str) -> Iterator[Example]:
        for file, label in zip(folder.files[split], folder.labels[split], strict=True):
            yield _pixels(data, file), data.labels(label)

    return Source(counts, examples, tuple(_notes(data, folder, counts)))


def _check_classes(data: Cifar, folder: image_folder.ImageFolder) -> None:
    unknown = sorted(set(folder.classes) - set(data.classes))
    if unknown:
        nearest = difflib.get_close_matches(unknown[0].lower(), data.classes, n=1)
        hint = f" (did you mean {nearest[0]!r}?)" if nearest else ""
        raise ValueError(
            f"{folder.root} has a class {unknown[0]!r} that {data.name} has not{hint}: class "
            f"folders must have the official names, {', '.join(data.classes)}"
        )
    missing = sorted(set(data.classes) - set(folder.classes))
    if missing:
        raise ValueError(
            f"{folder.root / 'train'} has no images of {len(missing)} of the {len(data.classes)} "
            f"classes of {data.name}: {', '.join(missing)}; add them, or train on the folder itself"
        )


def _pixels(data: Cifar, file: Path) -> NDArray[np.uint8]:
    pixels = image_file.decode(file)
    height, width, channels = cifar.IMAGE_SHAPE
    if pixels.shape[:2] != (height, width):
        raise ValueError(
            f"{file} is {pixels.shape[1]}x{pixels.shape[0]}, but images of {data.name} are "
            f"{width}x{height}: give the original images"
        )
    return np.broadcast_to(pixels, (height, width, channels))  # gray in all three channels


def _notes(
    data: Cifar, folder: image_folder.ImageFolder, counts: Mapping[str, int]
) -> Iterator[str]:
    for split, official in cifar.OFFICIAL_COUNTS.items():
        if counts[split] != official:
            yield (
                f"{counts[split]:,} {split} images, where {data.name} has {official:,}: "
                "results are not comparable with published ones"
            )
    yield from folder.notes
    yield from notes_of_untested(folder.classes, np.array(folder.labels["test"]))
    files = [file for split in folder.files.values() for file in split]
    lossy = sum(file.suffix.lower() in image_file.LOSSY_SUFFIXES for file in files)
    if lossy:
        yield (
            f"{lossy:,} of {len(files):,} images come from files of a lossy format (JPEG, WEBP): "
            "their pixels may differ from the official ones; say so beside a result"
        )
