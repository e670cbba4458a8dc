"""CIFAR as prepared by TensorFlow Datasets (array_record), read without TensorFlow.

Nothing here opens a connection: a missing set is an error at once.
"""

import contextlib
import os
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.data import image_file
from experiments.data.cifar import Cifar

_CHUNK = 1_000  # records asked for at a time: three times as fast as one by one


def default_data_dir() -> Path:
    """Where TensorFlow Datasets itself looks: $TFDS_DATA_DIR, else ~/tensorflow_datasets."""
    return Path(os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()


def set_folder(name: str, root: Path) -> Path:
    """Where in TFDS's data folder `root` the stock builder of the installed TFDS keeps a set."""
    import tensorflow_datasets as tfds  # half a second, which digits need not wait for

    return root / name / str(tfds.builder_cls(name).VERSION)


@contextlib.contextmanager
def opened(
    name: str, root: Path, missing: str, not_random: str, again: str
) -> Iterator[tuple[Any, Any]]:
    """TFDS and the builder of a prepared set, for reading it inside.

    Args:
      name: of the set in TFDS.
      root: TFDS's data folder.
      missing: message for a set that is not there.
      not_random: what to do about a format that needs TensorFlow.
      again: how to prepare a damaged set again.

    Raises:
      ValueError: it is missing, in a format that needs TensorFlow, or damaged.
    """
    folder = set_folder(name, root)
    if not (folder / "dataset_info.json").is_file():
        raise ValueError(missing)
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder(name, data_dir=os.fspath(root))
        formats = builder.info.available_file_formats()
        if not formats & tfds.core.FileFormat.with_random_access():
            raise NotReadableError(
                f"{folder} was prepared as {', '.join(sorted(f.value for f in formats))}, which "
                f"only TensorFlow can read: {not_random}"
            )
        yield tfds, builder
    except NotReadableError:
        raise
    except Exception as error:  # readers raise many kinds for a missing shard or damaged record
        raise ValueError(f"{folder} is damaged ({error}): prepare it again{again}") from error


class NotReadableError(ValueError):
    """The set is not damaged, but can't be read."""


def data_folder(data_dir: Path | None) -> Path:
    """TFDS's data folder; None is its default."""
    return default_data_dir() if data_dir is None else data_dir.expanduser()


def read(
    data: Cifar, data_dir: Path | None
) -> tuple[dict[str, tuple[NDArray[np.uint8], NDArray[np.int32]]], tuple[str, ...]]:
    """Reads a prepared set from TFDS's data folder; None is TFDS's own default.

    Returns:
      {split: (images uint8 (n, 32, 32, 3), labels int32 (n,))}, and the class names.

    Raises:
      ValueError: it is not prepared there (says what to put where, and the command), it is in a
        format that needs TensorFlow, or damaged.
    """
    root = data_folder(data_dir)
    command = f"python -m experiments.prepare {data.name} FOLDER_OR_ARCHIVE"
    missing = _missing_message(data, root, given=data_dir is not None)
    other = f"prepare it as array_record in another folder with {command} --data-dir DIR"
    with opened(data.name, root, missing, other, f" with {command} --overwrite") as (tfds, builder):
        splits = {split: _read_split(tfds, builder, split) for split in ("train", "test")}
    return splits, tuple(builder.info.features["label"].names)


def _missing_message(data: Cifar, root: Path, *, given: bool) -> str:
    archive = shlex.quote(os.fspath(root / data.archive))
    option = f" --data-dir {shlex.quote(os.fspath(root))}" if given else ""
    command = f"python -m experiments.prepare {data.name}"
    return (
        f"{data.name} is not prepared: {set_folder(data.name, root)} does not hold it, and "
        "nothing is downloaded. "
        f"Put the official archive ({data.url}) at {archive} and run\n"
        f"    {command} {archive}{option}\n"
        "or, with an image folder ROOT/{train,test}/CLASS/FILE,\n"
        f"    {command} ROOT{option}"
    )


def _read_split(tfds: Any, builder: Any, split: str) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """Decodes with Pillow: reading took a third of the time it takes with TFDS's decoder."""
    source = builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})
    images = np.empty((len(source), *builder.info.features["image"].shape), np.uint8)
    labels = np.empty(len(source), np.int32)
    for start in range(0, len(source), _CHUNK):
        numbers = range(start, min(start + _CHUNK, len(source)))
        for i, example in zip(numbers, source.__getitems__(numbers), strict=True):
            images[i] = image_file.decode(example["image"], f"image {i} of {split}")
            labels[i] = example["label"]
    return images, labels
