"""`--compile-for`: asks a worker where the compiler is, and prints what it says."""

import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from experiments.accelerators import environments, platform_of
from experiments.config import Config
from experiments.data.sizes import Sizes
from experiments.estimate.records import Doing, Failed, Machine, Record, Step, Tried, from_json
from experiments.estimate.report import Report, report

_COLUMNS = 4  # of a table: what 80 characters hold


def estimate(target: str, config: Config, sizes: Sizes, console: Console) -> Report:
    """Prints what a config's trainings need on a target; returns what it printed.

    Raises:
      ValueError: if the config can't be run there, or no compiler is installed.
    """
    machine: Machine | None = None
    steps: list[Step] = []
    tried: Tried | None = None
    with console.status("starting the compiler") as status:
        for record in _records(target, config, sizes):
            match record:
                case Machine():
                    machine = record
                case Step():
                    steps.append(record)
                case Tried():
                    tried = record
                case Doing(text):
                    status.update(f"{text}; a compilation takes minutes")
                case Failed(text):
                    raise ValueError(text)
    assert machine is not None
    assert tried is not None
    found = report(machine, steps, tried)
    _print(found, console)
    return found


def _print(found: Report, console: Console) -> None:
    console.print(found.title, "", sep="\n")
    for first in range(0, len(found.columns), _COLUMNS):
        columns = found.columns[first : first + _COLUMNS]
        table = Table(box=None, pad_edge=False, show_header=False)
        table.add_column()
        for _ in columns:
            table.add_column(justify="right")
        for row in zip(found.labels, *columns, strict=True):
            table.add_row(*row)
        console.print(table, "", sep="\n")
    console.print(*found.notes, "", found.verdict, sep="\n")


def _records(target: str, config: Config, sizes: Sizes) -> Iterator[Record]:
    """From this Python if it has the compiler, else from the environment that was made for it.

    Raises:
      ValueError: if neither has it, or the compiler fails.
    """
    platform = platform_of(target)
    request = {"target": target, "config": asdict(config), "sizes": asdict(sizes)}
    worker = ["-m", "experiments.estimate.worker", json.dumps(request, default=os.fspath)]
    made = environments.python_of(platform)
    for python in (Path(sys.executable), made):
        for record in _answers(target, python, worker):
            if isinstance(record, Failed) and record.no_compiler:
                if python == made or not made.exists():
                    raise ValueError(_without_compiler(record.text, platform))
                break
            yield record
        else:
            return


def _answers(target: str, python: Path, worker: Sequence[str]) -> Iterator[Record]:
    try:
        yield from map(from_json, environments.lines_by(python, worker, Path.cwd()))
    except RuntimeError as error:
        raise ValueError(f"compiling for {target} failed: {error} See above.") from error


def _without_compiler(text: str, platform: str) -> str:
    return (
        f"{text} Best run `benchmarks/accelerators/environments.sh {platform}`: --compile-for "
        "finds what it makes, and this environment stays as it is."
    )
