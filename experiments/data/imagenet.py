"""ImageNet (ILSVRC 2012) as prepared by TensorFlow Datasets, read without TensorFlow.

Nothing here opens a connection: a missing set is an error at once.
"""

import os
import shlex
from pathlib import Path
from typing import Any

import numpy as np

from experiments.data import fingerprint
from experiments.data.streamed_source import Encoded, Source, Split
from experiments.data.tfds_source import NotReadableError, data_folder, opened, set_folder

NAME = "imagenet2012"
CLASSES, TRAINING_IMAGES = 1_000, 1_281_167  # of ILSVRC 2012
_TEST = "validation"  # TFDS's `test` has no labels


def open_source(data_dir: Path | None, *, test: bool) -> Source:
    """Opens the prepared set, with its test split or without; its images stay on disk.

    The labels are in the records beside the images, so they are not known beforehand.

    Raises:
      ValueError: it is not prepared there (says what to put where, and the command), it is in a
        format that needs TensorFlow, or damaged.
    """
    root = data_folder(data_dir)
    folder = set_folder(NAME, root)
    convert = (
        "convert it once, in an environment that has TensorFlow, with\n"
        f"    tfds convert_format --dataset_version_dir={shlex.quote(os.fspath(folder))} "
        f"--out_file_format=array_record --out_dir=DIR/{NAME}/{folder.name}\n"
        "and name DIR with --data-dir"
    )
    with opened(NAME, root, _missing_message(root, folder), convert, "") as (tfds, builder):
        train = _split(tfds, builder, folder, "train")
        tested = _split(tfds, builder, folder, _TEST) if test else None
        return Source(tuple(builder.info.features["label"].names), train, tested, labelled=False)


def _split(tfds: Any, builder: Any, folder: Path, split: str) -> Split:
    if split not in builder.info.splits:
        raise NotReadableError(
            f"{folder} was prepared without the split {split!r}: prepare it again with both "
            "ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar"
        )
    stored = builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})

    def read(index: int) -> Encoded:
        where = f"image {index} of {split} in {folder}"
        try:
            record = stored[index]
        except Exception as error:
            raise ValueError(
                f"{where} cannot be read ({error}): the set is damaged; prepare it again"
            ) from error
        file = record["file_name"].decode()
        return Encoded(record["image"], f"{file} ({where})", int(record["label"]))

    info = builder.info.splits[split]
    told = (folder.name, split, info.num_examples, info.num_bytes)
    return Split(
        count=len(stored),
        read=read,
        labels=np.zeros(len(stored), np.int32),
        fingerprint=lambda: fingerprint.of_texts(map(str, told)),
    )


def _missing_message(root: Path, folder: Path) -> str:
    return (
        f"{NAME} is not prepared: {folder} does not hold it, and nothing is downloaded. "
        "Put ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar "
        "(https://image-net.org/download-images, after registration) into a folder TARS and run, "
        "in an environment that has TensorFlow,\n"
        f"    tfds build {NAME} --file_format=array_record --manual_dir=TARS "
        f"--data_dir={shlex.quote(os.fspath(root))}\n"
        "or name, in place of the data set, an image folder ROOT/{train,val}/CLASS/FILE"
    )
