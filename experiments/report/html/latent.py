"""Histograms of latent weights by epoch, of the first seed of each arm."""

from collections.abc import Mapping, Sequence
from typing import Any

from experiments.report.html.numbers import evenly, short
from experiments.run import histograms
from experiments.run.reader import Run, depth_order

MOST_NUMBERS = 600_000  # of all histograms of a page; they are compressed
TITLES = {"flipping": "Flips", "silent": "Flipped, now silent", "never_flipped": "Never flipped"}


def latent(run: Run, arms: Sequence[str], most: int = MOST_NUMBERS) -> dict[str, Any] | None:
    """What histograms/ holds of the arms; None if nothing.

    Returns:
      `kinds` (titles, in the order of the counts), `bins`, `rms` at the ends of the axis, `layers`,
      and `panels`, one per arm: `arm`, `seed`, `epochs`, `of` (epochs that were recorded), `limits`
      [layer][epoch] and `counts` [layer][epoch][kind * bins + bin].
    """
    found = {}
    for arm in arms:
        seed = run.seeds(arm)[0]
        by_epoch = _read(run, arm, seed)
        if by_epoch:
            found[arm] = seed, by_epoch
    names = depth_order(
        list(dict.fromkeys(x for _, epochs in found.values() for e in epochs.values() for x in e))
    )
    if not names:
        return None
    size = len(histograms.KINDS) * histograms.BINS * len(names) * len(found)
    return {
        "kinds": [TITLES[kind] for kind in histograms.KINDS],
        "bins": histograms.BINS,
        "rms": histograms.LIMIT,
        "layers": names,
        "panels": [
            {"arm": run.arms.index(arm), "seed": seed, **_panel(by_epoch, names, most // size)}
            for arm, (seed, by_epoch) in found.items()
        ],
    }


def _read(run: Run, arm: str, seed: int) -> dict[int, dict[str, Any]]:
    """Layers by epoch; nothing of an arm whose name is no name of a file."""
    path = histograms.file_of(run.folder, arm, seed)
    if path.parent != run.folder / histograms.FOLDER:
        return {}
    try:
        rows = histograms.read(path)
    except OSError:
        return {}
    whole = {epoch: row["layers"] for epoch, row in rows.items()}
    return {e: layers for e, layers in whole.items() if layers and all(map(_fits, layers.values()))}


def _fits(layer: Any) -> bool:
    """Whether a layer's counts are what a run writes."""
    if not isinstance(layer, Mapping) or not isinstance(layer.get("limit"), int | float):
        return False
    return all(
        isinstance(counts := layer.get(kind), list)
        and len(counts) == histograms.BINS
        and all(type(n) is int and n >= 0 for n in counts)
        for kind in histograms.KINDS
    )


def _panel(
    by_epoch: Mapping[int, Mapping[str, Any]], names: Sequence[str], most: int
) -> dict[str, Any]:
    epochs = sorted(by_epoch)
    kept = [epochs[i] for i in evenly(len(epochs), most)]
    found = [[by_epoch[epoch].get(name) for epoch in kept] for name in names]
    return {
        "epochs": kept,
        "of": len(epochs),
        "limits": [[None if x is None else short(x["limit"]) for x in row] for row in found],
        "counts": [
            [None if x is None else [n for k in histograms.KINDS for n in x[k]] for x in row]
            for row in found
        ],
    }
