"""Run folder -> pictures: what RUN holds becomes RUN/figures/*.png, their numbers *.csv.

    python -m experiments.figures RUN [RUN ...]

Each module draws one figure from its `points`, and these are what the CSV holds; `catalogue` says
which figures a run gets. Nothing here imports jax or touches matplotlib's global state.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

from matplotlib.figure import Figure

from experiments.figures import catalogue, style
from experiments.figures.points import Point, write_csv
from experiments.run.atomic_files import writing
from experiments.run.reader import Run, read_run
from experiments.run.symlinks import check_links

__all__ = ["build", "draw"]


def draw(run_dir: Path, report: Callable[[str], object] = print) -> list[Path]:
    """Draws every figure that the run holds the data for, also of an unfinished run.

    Args:
      run_dir: the run folder; figures go to its folder `figures`, over older ones, each with a
        CSV file of the numbers that it shows.
      report: told, a sentence each, what was left out and why.

    Returns:
      The pictures written.

    Raises:
      FileNotFoundError: `run_dir` is not a run folder.
      ValueError: no finished epoch, a file that no run writes like this, or a link that leads out
        of the folder.
      WriteError: a figure can't be written.
    """
    run = read_run(Path(run_dir))
    check_links(run.folder)
    for note in run.notes:
        report(note)
    folder = run.folder / "figures"
    with writing(folder, run.folder):
        folder.mkdir(exist_ok=True)
    paths = []
    with style.applied():
        for name, fig, points in _drawn(run, report):
            path = folder / f"{name}.png"
            with writing(path, run.folder):
                fig.savefig(path, dpi=style.DPI)
            table = path.with_suffix(".csv")
            with writing(table, run.folder):
                write_csv(table, points)
            paths.append(path)
    return paths


def build(run: Run, report: Callable[[str], object] = print) -> dict[str, Figure]:
    """The figures by file name without ".png", in the order a reader wants them."""
    with style.applied():
        return {name: fig for name, fig, _ in _drawn(run, report)}


def _drawn(run: Run, report: Callable[[str], object]) -> Iterator[tuple[str, Figure, list[Point]]]:
    missing = [arm for arm in run.planned_arms if arm not in run.arms]
    if run.is_sweep and missing:
        of_all = f"{len(missing)} of {len(run.planned_arms)} settings"
        report(f"{of_all} are in no figure: they have not finished an epoch")
    elif missing:
        for arm in missing:
            report(f"{arm} is in no figure: it has not finished an epoch")
    for name, entry in catalogue.entries(run, report).items():
        try:
            yield name, entry.figure(), entry.points()
        except style.NothingToDrawError as reason:
            report(f"{name}.png left out: {reason}")
