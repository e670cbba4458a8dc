"""What was read of each program, a JSON file each, so that a stop loses nothing."""

import json
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import Any

from benchmarks.accelerators.cells import source_hash
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
    """A folder of readings."""

    def __init__(self, folder: Path):
        """Nothing is made before the first reading is."""
        self._folder = folder

    def get(self, cell: Cell) -> dict[str, Any] | None:
        """What was read of today's sources, as the worker wrote it; None if nothing was."""
        file = self._file(cell)
        if not file.exists():
            return None
        record = json.loads(file.read_text(encoding="utf-8"))
        return record if record["source"] == source_hash(cell.program.code) else None

    def put(self, cell: Cell, record: dict[str, Any]) -> None:
        """Keeps a reading; a stop while it is written leaves none."""
        file = self._file(cell)
        file.parent.mkdir(parents=True, exist_ok=True)
        written = record | {
            "target": cell.target,
            "program": asdict(cell.program),
            "source": source_hash(cell.program.code),
        }
        partial = file.with_suffix(".partial")
        partial.write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")
        partial.replace(file)

    def all(self) -> list[dict[str, Any]]:
        """All readings of today's sources."""
        records = [json.loads(f.read_text("utf-8")) for f in sorted(self._folder.glob("*/*.json"))]
        return [r for r in records if r["source"] == source_hash(r["program"]["code"])]

    def _file(self, cell: Cell) -> Path:
        return self._folder / cell.target.replace(":", "-") / f"{cell.program.name}.json"
