"""Shares of silent weights by layer and epoch, as heat maps show them."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.report.html.numbers import evenly, percents
from experiments.run.reader import Run, depth_order

MOST_CELLS = 80_000  # of all heat maps of a page
KINDS = (
    ("never_flipped_ratio", "Never flipped"),
    ("silent_ratio", "Silent"),
    ("epoch_flip_ratio", "Changed sign since the epoch before"),
)


def layers(run: Run, arms: Sequence[str], most: int = MOST_CELLS) -> dict[str, Any] | None:
    """Mean over the seeds in percent, by kind, layer and epoch; None without such layers.

    Returns:
      `kinds`, `layers` from input to output, and `maps`, one per arm: `epochs`, and `values` by
      kind, [layer][epoch], None where a row has none.
    """
    with_layers = [arm for arm in arms if run.layers(arm)]
    names = depth_order(list(dict.fromkeys(x for arm in with_layers for x in run.layers(arm))))
    if not names:
        return None
    epochs = most // (len(KINDS) * len(names) * len(with_layers))
    maps = [_map(run, arm, names, epochs) for arm in with_layers]
    held = {kind for one in maps for kind in one["values"]}
    kinds = [{"key": key, "title": title} for key, title in KINDS if key in held]
    return {"kinds": kinds, "layers": names, "maps": maps} if kinds else None


def _map(run: Run, arm: str, names: Sequence[str], most: int) -> dict[str, Any]:
    values = {}
    epochs, _ = run.series(arm, "loss")
    kept = evenly(len(epochs), most)
    for kind, _ in KINDS:
        shares = np.array([np.mean(run.series(arm, kind, name)[1], axis=0)[kept] for name in names])
        if np.isfinite(shares).any():
            values[kind] = [percents(row) for row in shares]
    return {
        "arm": run.arms.index(arm),
        "epochs": [int(epochs[i]) for i in kept],
        "values": values,
    }
