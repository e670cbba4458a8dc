"""Which figures a run gets: those of a comparison, or those of what its sweep varies."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

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

    figure: Callable[[], Figure]
    points: Callable[[], list[Point]]


def entries(run: Run, report: Report) -> dict[str, Entry]:
    """The figures by file name without ".png", in the order in which they are shown."""
    return _of_sweep(run) if run.is_sweep else _of_comparison(run, report)


def _of_comparison(run: Run, report: Report) -> dict[str, Entry]:
    converging = {"convergence": _entry(convergence.figure, convergence.points, run)}
    if not run.holds("never_flipped_ratio"):  # the weights are real
        return converging
    found = {
        "headline": _entry(headline.figure, headline.points, run),
        **converging,
        "flips": _entry(flips.figure, flips.points, run),
    }
    try:
        return found | _histograms(run, report)
    except style.NothingToDrawError as reason:
        report(f"never_flipped.png left out: {reason}")
    return found


def _histograms(run: Run, report: Report) -> dict[str, Entry]:
    """The overview and, if it leaves out layers, a figure of all layers per optimizer."""
    histograms = never_flipped.read_histograms(run.folder)
    found = {
        "never_flipped": Entry(
            partial(never_flipped.figure, run, histograms),
            partial(never_flipped.points, run, histograms),
        )
    }
    for name in run.arms:
        layers = histograms.get(name, {})
        if not layers:
            report(f"{name} is not in never_flipped.png: latent.npz does not hold it")
        if len(layers) > never_flipped.MOST_COLUMNS:
            found[f"never_flipped_{name.replace('/', '-')}"] = Entry(
                partial(never_flipped.figure_all_layers, run, name, layers),
                partial(never_flipped.points, run, {name: layers}),
            )
    return found


def _of_sweep(run: Run) -> dict[str, Entry]:
    varying = {name for name in run.optimizers if run.varied(name)}
    scaled = {name for name in varying if gamma_accuracy.FIELD in run.varied(name)}
    found: dict[str, Entry] = {}
    if scaled:
        found |= {
            "gamma_accuracy": _entry(gamma_accuracy.figure, gamma_accuracy.points, run),
            "gamma_convergence": _entry(gamma_convergence.figure, gamma_convergence.points, run),
            "gamma_flip_rate": _entry(gamma_flip_rate.figure, gamma_flip_rate.points, run),
        }
        for name in (name for name in run.optimizers if name in scaled):
            found[f"gamma_flips_{name.replace('/', '-')}"] = Entry(
                partial(gamma_flips.figure, run, name), partial(gamma_flips.points, run, name)
            )
        varying -= scaled
    elif lars_ags.applies(run):
        return {"lars_ags": _entry(lars_ags.figure, lars_ags.points, run)}
    elif lam_tau.applies(run):
        return {"lam_tau": _entry(lam_tau.figure, lam_tau.points, run)}
    elif horizon.applies(run):
        return {"horizon": _entry(horizon.figure, horizon.points, run)}
    return found | ({"sweep": _entry(sweep.figure, sweep.points, run)} if varying else {})


def _entry(
    figure: Callable[[Run], Figure], points: Callable[[Run], list[Point]], run: Run
) -> Entry:
    return Entry(partial(figure, run), partial(points, run))
