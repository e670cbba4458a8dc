"""What trained networks answer to the test images: confusion, and images right and wrong."""

import base64
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from experiments.run import examples, predictions
from experiments.run.predictions import Predictions
from experiments.run.reader import Run

MOST_CLASSES = 100  # of a matrix; with more only the most frequent confusions are shown
MOST_CONFUSED = 20


def answers(run: Run, classes: Sequence[str], arms: Sequence[str]) -> list[dict[str, Any]]:
    """Confusion of each arm that has predictions, summed over the seeds.

    Returns:
      For each: `arm`, `seeds`, `images` (of all seeds), `right`, `unanswered` (NaN), `confused`
      as [label, predicted, count] by count, and `matrix`, [label][predicted], None if it is large.

    Raises:
      ValueError: if a file can't be read or names classes that the run has not.
    """
    found = []
    for arm in arms:
        seeds = [s for s in run.seeds(arm) if _file(run, arm, s).is_file()]
        if seeds:
            counts = sum(_confusion(run, arm, seed, len(classes)) for seed in seeds)
            found.append({"arm": run.arms.index(arm), "seeds": seeds, **_shown(counts)})
    return found


def _file(run: Run, arm: str, seed: int) -> Path:
    """The predictions of a training; of a name that is no name of a file, no file."""
    path = predictions.file_of(run.folder, arm, seed)
    return path if path.parent == run.folder / predictions.FOLDER else run.folder / "none"


def _confusion(run: Run, arm: str, seed: int, classes: int) -> NDArray[np.int64]:
    """(classes, classes + 1) counts by label and prediction; the last column had no answer."""
    path = _file(run, arm, seed)
    found = predictions.read(path)
    if len(found.label) and (found.label.max() >= classes or found.predicted.max() > classes):
        raise ValueError(
            f"{path} names class {max(found.label.max(), found.predicted.max())}, and data.json "
            f"has {classes} classes"
        )
    counts = np.zeros((classes, classes + 1), np.int64)
    np.add.at(counts, (found.label, found.predicted), 1)
    return counts


def _shown(counts: Any) -> dict[str, Any]:
    matrix = counts[:, :-1]
    wrong = matrix - np.diag(np.diag(matrix))
    order = np.argsort(-wrong, axis=None, kind="stable")[:MOST_CONFUSED]
    pairs = [(int(i), int(j)) for i, j in zip(*np.unravel_index(order, wrong.shape), strict=True)]
    return {
        "images": int(counts.sum()),
        "right": int(np.trace(matrix)),
        "unanswered": int(counts[:, -1].sum()),
        "confused": [[i, j, int(wrong[i, j])] for i, j in pairs if wrong[i, j]],
        "matrix": matrix.tolist() if len(matrix) <= MOST_CLASSES else None,
    }


def example_images(run: Run, arms: Sequence[str]) -> list[dict[str, Any]]:
    """Test images of the first seed of each arm that has them, as PNG.

    Raises:
      ValueError: if a file can't be read, or does not fit the predictions.
    """
    found = []
    for arm in arms:
        seed = run.seeds(arm)[0]
        answered = _file(run, arm, seed)
        path = examples.file_of(run.folder, answered.stem)
        if answered.is_file() and path.is_file():
            shown = _examples(path, predictions.read(answered))
            found.append({"arm": run.arms.index(arm), "seed": seed, "images": shown})
    return found


def _examples(path: Path, answered: Predictions) -> list[dict[str, Any]]:
    places, images = examples.read(path)
    if len(places) and not 0 <= places.min() <= places.max() < len(answered.label):
        raise ValueError(f"{path} is of other test images than the predictions")
    return [
        {
            "place": int(i),
            "label": int(answered.label[i]),
            "predicted": int(answered.predicted[i]),
            "percent": _percent(float(answered.probability[i])),
            "png": png(image),
        }
        for i, image in zip(places, images, strict=True)
    ]


def _percent(fraction: float) -> float | None:
    return round(100 * fraction, 1) if math.isfinite(fraction) else None


def png(image: NDArray[np.uint8]) -> str:
    """A picture as base64 of PNG, from (height, width, 1 or 3)."""
    written = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(written, "PNG")
    return base64.b64encode(written.getvalue()).decode()
