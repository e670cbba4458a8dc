"""The one-bit network of a training, and what a one-bit network answers."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import ovsw_jax as ovsw
from experiments.data import Dataset, load
from experiments.trained import Trained

Logits = Callable[[NDArray[np.float32]], Any]  # of preprocessed images


def frozen_of(trained: Trained) -> ovsw.deploy.FrozenNetwork:
    """The one-bit network, with classes and preprocessing of its data.

    Raises:
      ValueError: if it has a part that can't be frozen.
    """
    known = trained.data
    return ovsw.deploy.freeze(
        trained.model,
        (1, *known.image_shape),
        classes=known.classes,
        preprocessing={"mean": known.mean.tolist(), "std": known.std.tolist()},
    )


def images_of(config: Mapping[str, Any], data_dir: Path | None = None) -> Dataset:
    """The data set of a run, with its test images.

    Raises:
      ValueError: if the run streamed its images, or they are not there.
    """
    if config.get("image_size") is not None:
        raise ValueError("the run streamed its images from disk")
    directory, held_out = data_dir or config.get("data_dir"), config.get("held_out") or 0
    return load(config["data"], data_dir=directory, held_out=held_out)


def classes_of(
    logits: Logits,
    preprocess: Callable[[NDArray[np.uint8]], Any],
    images: NDArray[np.uint8],
    batch: int = 500,
) -> NDArray[np.int32]:
    """The class of each uint8 image."""
    starts = range(0, len(images), batch)
    parts = [np.asarray(preprocess(images[i : i + batch])) for i in starts]
    return np.concatenate([np.argmax(logits(part), -1) for part in parts]).astype(np.int32)
