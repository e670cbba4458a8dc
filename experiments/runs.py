"""python -m experiments.runs [FOLDER]: lists, filters and compares run folders, see `--help`."""

import sys
from pathlib import Path
from typing import Literal

import tyro
from rich.console import Console
from rich.table import Table
from rich.text import Text

from experiments.report.html.document import document
from experiments.report.html.runs_content import runs_content
from experiments.report.listing import HEADS, NUMBERS, Line, find, kept, lines, parse_conditions

_DIFFERS = HEADS.index("differs")


def main(
    folder: tyro.conf.Positional[Path] = Path("runs"),
    where: tuple[str, ...] = (),
    optimizers: tuple[str, ...] = (),
    finished: tyro.conf.FlagCreatePairsOff[bool] = False,
    sort: Literal["name", "top1"] = "name",
    html: Path | None = None,
) -> None:
    """Lists the runs below a folder in a table, a row for each optimizer, of a sweep its best.

    Below it is said in which other fields of their configs the runs differ.

    Args:
      folder: holds run folders, at any depth, or is one.
      where: only runs with these values in their configs, as FIELD=VALUE: data=digits epochs=16
      optimizers: only rows of these optimizers
      finished: only runs that came to their end
      sort: name, or top1 for the highest first
      html: also write the table as a page, with the curves over each other
    """
    try:
        found = find(folder)
        found = kept(found, parse_conditions(where), optimizers, finished)
        shown = lines(found, optimizers, by_top1=sort == "top1")
        if html is not None:
            name = folder.resolve().name
            page = document("runs", runs_content(name, shown, found.unread))
            html.write_text(page, encoding="utf-8")
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    console = Console(highlight=False, markup=False)
    if shown:
        console.print(_table(shown))
        for sentence in _differences(shown):
            console.print(sentence, soft_wrap=True)
    else:
        console.print(f"no run in {folder} fits")
    for sentence in found.unread:
        console.print(f"not read: {sentence}", soft_wrap=True)
    if html is not None:
        console.print(str(html), soft_wrap=True)


def _table(shown: list[Line]) -> Table:
    """Names fold, numbers don't. A run is named at its first row."""
    table = Table()
    for i, head in enumerate(HEADS[:_DIFFERS]):
        right = i in NUMBERS
        head = head.replace("never ", "never\n")  # narrow, for the names
        table.add_column(head, justify="right" if right else "left", no_wrap=right, overflow="fold")
    for before, line in zip([None, *shown], shown, strict=False):
        again = before is not None and before.name == line.name
        name = "" if again else line.name
        table.add_row(*map(Text, (name, *line.cells[1:_DIFFERS])))
    return table


def _differences(shown: list[Line]) -> list[str]:
    """In which fields of their configs the runs differ, a sentence for each run."""
    return [
        f"{name}: {said}"
        for name, said in {x.name: x.cells[_DIFFERS] for x in shown}.items()
        if said
    ]


if __name__ == "__main__":
    tyro.cli(main, prog="python -m experiments.runs")
