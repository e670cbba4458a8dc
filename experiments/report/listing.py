"""The run folders below a folder: found, filtered, and as rows of one table. No jax."""

import dataclasses
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from experiments.config import Config
from experiments.config.choices import choose
from experiments.report.html.arms import mean_top1
from experiments.report.html.numbers import best_first
from experiments.report.html.settings import text
from experiments.report.table import spread
from experiments.run.reader import TOP1, Run, read_run

_DEFAULTS = dataclasses.asdict(Config())
# Fields that differ without making two runs different experiments, or that have their own column.
_NOT_COMPARED = {"out", "data_dir", "optimizers", "seeds", "epochs", "grids"}
_NOT_COMPARED |= {"checkpoint_seconds", "members_at_once", "workers"}
HEADS = ("run", "optimizer", "epochs", "top-1 %", "never flipped %", "n", "differs")
NUMBERS = (2, 3, 4, 5)  # columns


@dataclass(frozen=True)
class Found:
    """What is below a folder.

    Attributes:
      runs: by name, the path below the folder.
      unread: a sentence for each folder that looks like a run and can't be read, or holds none.
    """

    runs: Mapping[str, Run]
    unread: Sequence[str]


def find(folder: Path) -> Found:
    """The run folders below `folder`, or itself; links to folders are not followed.

    Raises:
      ValueError: if it is no folder.
    """
    if not folder.is_dir():
        raise ValueError(
            f"{folder} is no folder: give one that holds run folders, such as runs, which "
            "python -m experiments.train makes"
        )
    runs, unread = {}, []
    for path in sorted(_with_config(folder)):
        name = folder.resolve().name if path == folder else path.relative_to(folder).as_posix()
        try:
            runs[name] = read_run(path)
        except (OSError, ValueError, TypeError, KeyError) as error:
            unread.append(f"{name}: {error}")
    unread += [f"{path.name}: holds no run" for path in _foreign(folder, runs, unread)]
    return Found(runs, unread)


def _with_config(folder: Path) -> Iterator[Path]:
    for path, folders, files in os.walk(folder):
        if "config.json" in files:
            folders.clear()  # a run holds no run
            yield Path(path)


def _foreign(folder: Path, runs: Mapping[str, Run], unread: Sequence[str]) -> list[Path]:
    """Folders in `folder` with no run below; none of a folder that is a run."""
    if (folder / "config.json").is_file():
        return []
    names = [*runs, *(sentence.partition(": ")[0] for sentence in unread)]
    held = {PurePath(name).parts[0] for name in names}
    return sorted(p for p in folder.iterdir() if p.is_dir() and p.name not in held)


def config_of(run: Run) -> dict[str, Any]:
    """The run's config; a field that its version had not has its default."""
    return {**_DEFAULTS, **run.config}


def parse_conditions(texts: Sequence[str]) -> dict[str, str]:
    """Conditions on fields of the config, from FIELD=VALUE.

    Raises:
      ValueError: if one has no "=", or names no field.
    """
    pairs = [given.partition("=") for given in texts]
    if wrong := [field for field, equals, _ in pairs if not equals or not field]:
        raise ValueError(f"--where {wrong[0]} is no condition: give FIELD=VALUE, as in epochs=60")
    for field, _, _ in pairs:
        choose("field", field, _DEFAULTS)
    return {field: value for field, _, value in pairs}


def kept(
    found: Found, conditions: Mapping[str, str], optimizers: Sequence[str], finished: bool
) -> Found:
    """The runs whose config has these values, with any of the optimizers, finished if asked."""

    def holds(run: Run) -> bool:
        return (
            all(_matches(config_of(run)[field], value) for field, value in conditions.items())
            and (not optimizers or bool(set(optimizers) & set(run.optimizers)))
            and (not finished or all(map(run.finished, run.planned_arms)))
        )

    return Found({name: run for name, run in found.runs.items() if holds(run)}, found.unread)


def _matches(there: Any, wanted: str) -> bool:
    """Whether a field has a value, or is a list that has it; numbers compare as numbers."""
    if isinstance(there, list):
        return any(_matches(item, wanted) for item in there) or text(there) == wanted
    try:
        return float(there) == float(wanted)
    except (TypeError, ValueError):
        return text(there) == wanted


@dataclass(frozen=True)
class Line:
    """A row of the table: an optimizer of a run, in a sweep at its best setting."""

    name: str
    run: Run
    arm: str
    cells: tuple[str, ...]


def lines(found: Found, optimizers: Sequence[str] = (), by_top1: bool = False) -> list[Line]:
    """Rows of all runs, in the order of their names, or from the highest top-1."""
    differing = _differing(list(found.runs.values()))
    made = [
        line
        for name, run in found.runs.items()
        for line in _lines_of(name, run, optimizers, differing)
    ]
    if by_top1:
        order = best_first([mean_top1(line.run, line.arm) for line in made])
        made = [made[i] for i in order]
    return made


def _lines_of(
    name: str, run: Run, optimizers: Sequence[str], differing: Sequence[str]
) -> Iterator[Line]:
    wanted = [key for key in run.optimizers if not optimizers or key in optimizers]
    config = config_of(run)
    settings = ", ".join(f"{field} {text(config[field])}" for field in differing)
    for key in wanted:
        arms = run.arms_of(key)
        arm = arms[best_first([mean_top1(run, a) for a in arms])[0]]
        yield Line(name, run, arm, (name, *_cells(run, arm, len(arms)), settings))


def _cells(run: Run, arm: str, settings: int) -> tuple[str, ...]:
    best = f" (best of {settings})" if settings > 1 else ""
    planned = text(run.planned_epochs)
    epochs = planned if run.finished(arm) else f"{run.last_epoch(arm)} of {planned}"
    never = run.final(arm, "never_flipped_ratio")
    return (
        run.name(arm) + best,
        epochs,
        spread([v if math.isfinite(v) else None for v in run.final(arm, TOP1)], count=False),
        spread(never, count=False) if all(map(math.isfinite, never)) else "",
        str(len(run.seeds(arm))),
    )


def _differing(runs: Sequence[Run]) -> list[str]:
    """Fields of the config in which the runs differ."""
    configs = [config_of(run) for run in runs]
    compared = [field for field in _DEFAULTS if field not in _NOT_COMPARED]
    return [field for field in compared if len({text(c[field]) for c in configs}) > 1]
