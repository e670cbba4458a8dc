"""Run folder -> pictures: RUN/figures/*.png, and their numbers in *.csv.

    python -m experiments.figures RUN [RUN ...]

A new figure is a module with `points(run)`, the rows of its CSV, and `figure(run)`, which draws
them; `catalogue.py` says which runs get it, `report/page.py` has its caption. Nothing here imports
jax or touches matplotlib's global state.
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
    """Draws every figure for which the run, finished or not, holds the data.

    Each goes to `run_dir`/figures, over an older one, with a CSV file of its numbers. `report` is
    called with a sentence for whatever was left out.

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
    """The figures by file name without ".png", in the order in which they are shown."""
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
            yield name, entry.figure(*entry.arguments), entry.points(*entry.arguments)
        except style.NothingToDrawError as reason:
            report(f"{name}.png left out: {reason}")
