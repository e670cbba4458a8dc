"""What was read of each program: a file, written anew for each, so that a stop loses nothing."""

import json
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import Any

from benchmarks.accelerators.pods import PodProgram
from benchmarks.accelerators.programs import Program


@dataclass(frozen=True)
class Cell:
    """A program for a target."""

    target: str
    program: Program | PodProgram

    @property
    def arguments(self) -> list[str]:
        """Of the program, for a worker."""
        return list(astuple(self.program))


class Readings:
    """A file of readings, as `worker.py` wrote them, by target and name."""

    def __init__(self, file: Path):
        """Reads the file; an absent one holds none, and is not made before the first `put`."""
        self._file = file
        records = json.loads(file.read_text(encoding="utf-8")) if file.exists() else []
        self._records = {(record["target"], record["name"]): record for record in records}

    def key(self, cell: Cell) -> str | None:
        """Of the program that was read, as `program_key` gives it; None if nothing was read."""
        record = self._records.get((cell.target, cell.program.name))
        return record["key"] if record else None

    def put(self, cell: Cell, record: dict[str, Any]) -> None:
        """Keeps a reading instead of what was read of this cell before."""
        place = cell.target, cell.program.name
        self._records[place] = record | {"target": cell.target, "program": asdict(cell.program)}
        self._file.parent.mkdir(parents=True, exist_ok=True)
        partial = self._file.with_suffix(".partial")
        partial.write_text(json.dumps(self.all(), indent=1) + "\n", encoding="utf-8")
        partial.replace(self._file)

    def all(self) -> list[dict[str, Any]]:
        """All readings, in the order of their names."""
        return [self._records[place] for place in sorted(self._records)]
