"""All benchmarks of speed and memory, one after another.

    python -m benchmarks [--only optimizer_step training_step ...] [--quick] [--out FILE|DIR]

Each runs in a process of its own, prints its tables in Markdown, and goes by ratios that were
measured in one run. A folder as --out gets a JSON file a benchmark with all raw measurements, and
figures; a file, NAME.json, gets all of them in one. `python -m benchmarks.NAME --help` tells what
each one does and how to change it.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Literal, get_args

import tyro

Name = Literal[
    "optimizer_step",
    "training_step",
    "growth",
    "epoch",
    "memory",
    "input_pipeline",
    "sweep",
    "inference",
]
NAMES: tuple[Name, ...] = get_args(Name)


def main(only: tuple[Name, ...] = NAMES, quick: bool = False, out: Path | None = None) -> list[str]:
    """Runs benchmarks.

    Args:
      only: which ones.
      quick: small sizes and few repeats, to see that all run; the numbers mean nothing.
      out: folder or .json file for the raw measurements.

    Returns:
      The names of those that failed.
    """
    one_file = out is not None and out.suffix == ".json"
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) if out is None or one_file else out
        folder.mkdir(parents=True, exist_ok=True)
        failed: list[str] = [name for name in only if not _run(name, quick, folder)]
        if out is not None and one_file:
            _join(folder, [name for name in only if name not in failed], out)
    return failed


def _run(name: str, quick: bool, folder: Path) -> bool:
    """Whether it ran to its end."""
    print(f"## {name}\n", flush=True)
    started = time.perf_counter()
    where = ["--out", str(folder)] if name == "growth" else ["--json-file", f"{folder}/{name}.json"]
    command = [sys.executable, "-m", f"benchmarks.{name}", *where, *["--quick"] * quick]
    code = subprocess.run(command, check=False).returncode
    ended = "took" if code == 0 else f"failed with exit code {code} after"
    print(f"\n{name} {ended} {time.perf_counter() - started:.0f} s.\n", flush=True)
    return code == 0


def _join(folder: Path, names: list[str], out: Path) -> None:
    """Writes the files of several benchmarks as one."""
    found = {name: json.loads((folder / f"{name}.json").read_text("utf-8")) for name in names}
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    failed = tyro.cli(main)
    if failed:
        sys.exit(f"error: {', '.join(failed)} failed; the messages are above.")
