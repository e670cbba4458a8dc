"""What a run wrote, read without the code under test."""

import json

import numpy as np


def rows(folder):
    """Rows of metrics.jsonl that were written whole."""
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def untimed(folder):
    """The rows without what no two runs share."""
    timed = ("seconds", "images_per_second")
    return [{k: v for k, v in row.items() if k not in timed} for row in rows(folder)]


def arrays(folder):
    """Trained weights and initial latent weights: file/name -> array."""
    found = {}
    for path in [*folder.glob("weights/*.npz"), folder / "latent.npz"]:
        with np.load(path) as content:
            found |= {f"{path.name}/{name}": array for name, array in content.items()}
    return found
