"""Wall time of a sweep of eight members against eight separate runs, compilation included.

    python -m benchmarks.sweep [--repeats 2] [--epochs 4] [--json-file FILE]

Every way trains OvSW on digits with the same eight values of lam, from the command line to the
last metric, in fresh processes: what a user waits for. Repeats are interleaved.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import tyro

from benchmarks import measuring

LAM = ("0.005", "0.01", "0.02", "0.04", "0.08", "0.16", "0.32", "0.64")
SEPARATE = "separate runs, one after another"
TOGETHER = {
    "a sweep, one member a core": "None",
    "a sweep, all vmapped on one device": "8",
}


def main(
    repeats: int = 2, epochs: int = 4, quick: bool = False, json_file: Path | None = None
) -> None:
    """Prints the table.

    Args:
      repeats: measurements of each way.
      epochs: of every training.
      quick: two members of one epoch, once, to see that it runs.
      json_file: also write all measurements there.
    """
    lam = LAM[:2] if quick else LAM
    repeats, epochs = (1, 1) if quick else (repeats, epochs)
    measuring.check_positive(repeats=repeats, epochs=epochs)
    ways = {SEPARATE: partial(_seconds, [(value,) for value in lam], epochs, "1")}
    for name, at_once in TOGETHER.items():
        ways[name] = partial(_seconds, [lam], epochs, at_once)
    seconds = measuring.interleaved(ways, repeats)
    rows = []
    for name, measured in seconds.items():
        shown = ", ".join(f"{s:.0f}" for s in measured)
        spread = measuring.spread(seconds, name, SEPARATE, measuring.RANGE)
        rows.append((name, spread, shown))
    measuring.print_table(
        (f"{len(lam)} trainings", "time / separate runs (median, range)", "seconds"), rows
    )
    measuring.write_json(
        json_file,
        benchmark="sweep",
        settings={"epochs": epochs, "members": len(lam)},
        seconds=seconds,
    )


def _seconds(runs: Sequence[Sequence[str]], epochs: int, at_once: str) -> float:
    """Of some runs one after another, each of some values of lam."""
    started = time.perf_counter()
    for lam in runs:
        _train(lam, epochs, at_once)
    return time.perf_counter() - started


def _train(lam: Sequence[str], epochs: int, at_once: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        command = f"-m experiments.train digits --seeds 0 --epochs {epochs}"
        grid = f"optimizer=ovsw lam={','.join(lam)}"
        more = ["--grids", grid, "--members-at-once", at_once, "--out", f"{folder}/run"]
        subprocess.run(
            [sys.executable, *command.split(), *more], check=True, stdout=subprocess.DEVNULL
        )


if __name__ == "__main__":
    try:
        tyro.cli(main)
    except ValueError as error:
        sys.exit(f"error: {error}")
