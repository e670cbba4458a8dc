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


def read(path: Path) -> Predictions:
    """What `save` wrote.

    Raises:
      OSError: if there is no such file.
      ValueError: if it holds anything else.
    """
    with path.open("rb") as file:
        try:
            with np.load(file, allow_pickle=False) as arrays:
                found = Predictions(*(arrays[name] for name in Predictions._fields))
        except Exception as error:  # zipfile, zlib and NumPy raise many kinds
            raise ValueError(f"{path} can't be read: {error}") from error
    kinds = [x.dtype.kind for x in found]
    if kinds != ["u", "u", "f"] or any(x.shape != found.label.shape[:1] for x in found):
        raise ValueError(
            f"{path} holds arrays of {[str(x.dtype) for x in found]} and shapes "
            f"{[x.shape for x in found]}, they must be uint16, uint16 and float16 (images,)"
        )
    return found
