"""Run folder -> pictures: RUN/metrics.jsonl and RUN/latent.npz become RUN/figures/*.png.

    python -m experiments.figures RUN [RUN ...]

Each module draws one figure. Nothing here imports jax or touches matplotlib's global state.
"""

from collections.abc import Callable
from pathlib import Path

from matplotlib.figure import Figure

from experiments.figures import convergence, flips, headline, never_flipped, style
from experiments.records import Run, read_run

__all__ = ["build", "draw"]


def draw(run_dir: Path, report: Callable[[str], object] = print) -> list[Path]:
    """Draws every figure that the run holds the data for, also of an unfinished run.

    Args:
      run_dir: the run folder; figures go to its folder `figures`, over older ones.
      report: told, a sentence each, what was left out and why.

    Returns:
      The files written.

    Raises:
      FileNotFoundError: `run_dir` is not a run folder.
      ValueError: no finished epoch, or a file that no run writes like this.
    """
    run = read_run(Path(run_dir))
    for note in run.notes:
        report(note)
    folder = run.folder / "figures"
    folder.mkdir(exist_ok=True)
    paths = []
    with style.applied():
        for name, fig in build(run, report).items():
            path = folder / f"{name}.png"
            fig.savefig(path, dpi=style.DPI)
            paths.append(path)
    return paths


def build(run: Run, report: Callable[[str], object] = print) -> dict[str, Figure]:
    """The figures by file name without ".png", in the order a reader wants them."""
    figures: dict[str, Figure] = {}
    with style.applied():
        for optimizer in run.planned_optimizers:
            if optimizer not in run.optimizers:
                report(f"{optimizer} is in no figure: it has not finished an epoch")
        figures["headline"] = headline.figure(run)
        figures["convergence"] = convergence.figure(run)
        try:
            figures["flips"] = flips.figure(run)
        except style.NothingToDrawError as reason:
            report(f"flips.png left out: {reason}")
        try:
            figures.update(_histogram_figures(run, report))
        except style.NothingToDrawError as reason:
            report(f"never_flipped.png left out: {reason}")
    return figures


def _histogram_figures(run: Run, report: Callable[[str], object]) -> dict[str, Figure]:
    """The overview and, where it shows only some of the layers, one of them all an optimizer."""
    histograms = never_flipped.read_histograms(run.folder)
    figures = {"never_flipped": never_flipped.figure(run, histograms)}
    for name in run.optimizers:
        layers = histograms.get(name, {})
        if not layers:
            report(f"{name} is not in never_flipped.png: latent.npz does not hold it")
        if len(layers) > never_flipped.MOST_COLUMNS:
            file_name = f"never_flipped_{name.replace('/', '-')}"
            figures[file_name] = never_flipped.figure_all_layers(run, name, layers)
    return figures
