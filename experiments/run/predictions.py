"""A trained network's answer to each test image.

RUN/predictions/OPTIMIZER-seedSEED.npz holds, in the order of the test images, `label` and
`predicted` class (uint16; the number of classes if the logits hold NaN) and the `probability` of
the predicted class (float16).
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments.run.atomic_files import write_arrays, writing

FOLDER = "predictions"


class Predictions(NamedTuple):
    """The answers of one network; (images,) arrays."""

    label: np.ndarray
    predicted: np.ndarray
    probability: np.ndarray


def file_of(run: Path, optimizer: str, seed: int) -> Path:
    """The file with the predictions of one training."""
    return run / FOLDER / f"{optimizer}-seed{seed}.npz"


def save(path: Path, predictions: Predictions) -> None:
    """Writes them, whole or not at all.

    Raises:
      WriteError: if they can't be written.
    """
    run = path.parent.parent
    with writing(path.parent, run):
        path.parent.mkdir(exist_ok=True)
    arrays = predictions._asdict()
    kinds = {"label": np.uint16, "predicted": np.uint16, "probability": np.float16}
    kept = {name: x.astype(kinds[name]) for name, x in arrays.items()}
    write_arrays(path, run, kept, compressed=True)
