"""Which figures a run gets: those of a comparison, or those of what its sweep varies.

A new figure is a module with `points(run)` and `figure(run)`; it goes into one of these lists.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from experiments.figures import (
    convergence,
    flips,
    gamma_accuracy,
    gamma_convergence,
    gamma_flip_rate,
    gamma_flips,
    headline,
    horizon,
    lam_tau,
    lars_ags,
    never_flipped,
    style,
    sweep,
)
from experiments.figures.points import Point
from experiments.run.reader import Run

Report = Callable[[str], object]


class Entry(NamedTuple):
    """One figure: how to draw it, and the numbers in it. Both may raise NothingToDrawError."""

    figure: Callable[..., Figure]
    points: Callable[..., list[Point]]
    arguments: tuple[Any, ...]  # of both


def entries(run: Run, report: Report) -> dict[str, Entry]:
    """The figures by file name without ".png", in the order in which they are shown."""
    return _of_sweep(run) if run.is_sweep else _of_comparison(run, report)


def _of_comparison(run: Run, report: Report) -> dict[str, Entry]:
    if not run.holds("never_flipped_ratio"):  # the weights are real
        return _named(run, convergence)
    found = _named(run, headline, convergence, flips)
    try:
        return found | _histograms(run, report)
    except style.NothingToDrawError as reason:
        report(f"never_flipped.png left out: {reason}")
    return found


def _histograms(run: Run, report: Report) -> dict[str, Entry]:
    """The overview and, if it leaves out layers, a figure of all layers per optimizer."""
    histograms = never_flipped.read_histograms(run.folder)
    found = {
        "never_flipped": Entry(never_flipped.figure, never_flipped.points, (run, histograms)),
    }
    for name in run.arms:
        layers = histograms.get(name, {})
        if not layers:
            report(f"{name} is not in never_flipped.png: latent.npz does not hold it")
        if len(layers) > never_flipped.MOST_COLUMNS:
            found[f"never_flipped_{name.replace('/', '-')}"] = Entry(
                never_flipped.figure_all_layers, never_flipped.points, (run, {name: layers})
            )
    return found


def _of_sweep(run: Run) -> dict[str, Entry]:
    varying = [name for name in run.optimizers if run.varied(name)]
    scaled = [name for name in varying if gamma_accuracy.FIELD in run.varied(name)]
    if not scaled:
        special = (module for module in (lars_ags, lam_tau, horizon) if module.applies(run))
        return _named(run, next(special, sweep))
    found = _named(run, gamma_accuracy, gamma_convergence, gamma_flip_rate)
    for name in scaled:
        found[f"gamma_flips_{name.replace('/', '-')}"] = Entry(
            gamma_flips.figure, gamma_flips.points, (run, name)
        )
    return found if scaled == varying else found | _named(run, sweep)


def _named(run: Run, *modules: Any) -> dict[str, Entry]:
    """Figures that are called like their modules."""
    return {m.__name__.rpartition(".")[2]: Entry(m.figure, m.points, (run,)) for m in modules}
