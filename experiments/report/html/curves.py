"""Curves over the epochs: mean and spread of the seeds, a line per arm."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.report.html.numbers import evenly, mean_and_std, percents, shorts
from experiments.run.reader import TOP1, Run

MOST_NUMBERS = 40_000  # of all curves of a page
# Metric, title, whether it is a fraction.
CURVES = (
    (TOP1, "Test top-1", True),
    ("loss", "Training loss", False),
    ("never_flipped_ratio", "Weights that never flipped", True),
    ("epoch_flip_ratio", "Signs that changed since the epoch before", True),
)


def curves(run: Run, arms: Sequence[str], most: int = MOST_NUMBERS) -> list[dict[str, Any]]:
    """Charts of what the run measured; `arm` of a line is its place among the run's arms."""
    held = [curve for curve in CURVES if run.holds(curve[0])]
    points = most // max(1, 2 * len(held) * len(arms))
    return [
        {
            "title": title_of(run.config, metric, title),
            "unit": "%" if fraction else "",
            "lines": [
                {"arm": run.arms.index(arm), **line(run, arm, metric, fraction, points)}
                for arm in arms
            ],
        }
        for metric, title, fraction in held
    ]


def title_of(config: Mapping[str, Any], metric: str, title: str) -> str:
    """Top-1 may be on training images that were held out."""
    return "Held-out top-1" if metric == TOP1 and config.get("held_out") else title


def line(run: Run, arm: str, metric: str, fraction: bool, points: int) -> dict[str, Any]:
    """Epochs, mean and sample standard deviation over seeds, at so many epochs at most."""
    epochs, values = run.series(arm, metric)
    kept = evenly(len(epochs), points) if len(epochs) else []
    mean, std = mean_and_std(np.asarray(values)[:, kept])
    numbers = percents if fraction else shorts
    return {
        "epochs": [int(epochs[i]) for i in kept],
        "mean": numbers(mean),
        "std": None if std is None else numbers(std),
        "seeds": len(values),
    }
