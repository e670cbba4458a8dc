"""Histograms of the latent weights by epoch: which weights wake up, and how large they are.

RUN/histograms/OPTIMIZER-seedSEED.jsonl holds a line per epoch at which the training was evaluated,
and one for the initial weights, epoch 0:

    {"epoch": 0, "step": 0, "layers": {LAYER: {"limit": x, "flipping": [...], "silent": [...],
     "never_flipped": [...]}}}

The lists count the weights of `BINS` equal intervals from -limit to limit; the outermost two also
hold what lies beyond. A weight is in one list: "silent" has those that flipped before they fell
silent. A stack of layers in one kernel is one LAYER. An epoch that a resumed run trains again has
two lines; the later one holds. `experiments.training.latent_histograms` counts.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from experiments.run.atomic_files import writing

FOLDER = "histograms"
BINS = 48
KINDS = ("flipping", "silent", "never_flipped")
LIMIT = 4.0  # root mean squares of a layer: of normal weights one in 16,000 lies beyond

Counts = Mapping[str, Mapping[str, Any]]  # by layer: "limit", and "counts" (kinds, BINS)


def file_of(run: Path, optimizer: str, seed: int) -> Path:
    """The file with the histograms of one training."""
    return run / FOLDER / f"{optimizer}-seed{seed}.jsonl"


def append(path: Path, epoch: int, step: int, counts: Counts) -> None:
    """Appends the line of an epoch.

    Raises:
      WriteError: if it can't be written.
    """
    layers = {
        layer: {
            "limit": float(found["limit"]),
            **dict(zip(KINDS, np.asarray(found["counts"]).tolist(), strict=True)),
        }
        for layer, found in counts.items()
    }
    line = json.dumps({"epoch": epoch, "step": step, "layers": layers}, separators=(",", ":"))
    run = path.parent.parent
    with writing(path, run):
        path.parent.mkdir(exist_ok=True)
        with path.open("ab+") as file:
            cut_off = file.seek(0, 2) and (file.seek(-1, 2), file.read())[1] != b"\n"
            file.write(f"{chr(10) if cut_off else ''}{line}\n".encode())


def read(path: Path) -> dict[int, dict[str, Any]]:
    """What `append` wrote, by epoch, without incomplete lines.

    Raises:
      OSError: if there is no such file.
    """
    found = {}
    for line in path.read_bytes().splitlines():
        try:
            row = json.loads(line)
            found[int(row["epoch"])] = {"step": int(row["step"]), "layers": dict(row["layers"])}
        except (ValueError, TypeError, KeyError, RecursionError):
            continue
    return dict(sorted(found.items()))
