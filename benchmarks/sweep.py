"""Wall time of a sweep of eight members against eight separate runs, compilation included.

    python -m benchmarks.sweep [--repeats 2] [--epochs 4] [--json-file FILE]

Every way trains OvSW on digits with the same eight values of lam, from the command line to the
last metric, in fresh processes: what a user waits for. Repeats are interleaved.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tyro

LAM = ("0.005", "0.01", "0.02", "0.04", "0.08", "0.16", "0.32", "0.64")
SEPARATE = "eight runs, one after another"
TOGETHER = {
    "a sweep, one member a core": "None",
    "a sweep, all eight vmapped on one device": "8",
}


def main(repeats: int = 2, epochs: int = 4, json_file: Path | None = None) -> None:
    """Prints the table.

    Args:
      repeats: measurements of each way.
      epochs: of every training.
      json_file: also write all measurements there.
    """
    seconds: dict[str, list[float]] = {name: [] for name in (SEPARATE, *TOGETHER)}
    for _ in range(repeats):
        started = time.perf_counter()
        for lam in LAM:
            _train((lam,), epochs, "1")
        seconds[SEPARATE].append(time.perf_counter() - started)
        for name, at_once in TOGETHER.items():
            started = time.perf_counter()
            _train(LAM, epochs, at_once)
            seconds[name].append(time.perf_counter() - started)
    print("| eight trainings | time / separate runs (median, range) | seconds |")
    print("| --- | ---: | ---: |")
    for name, low, middle, high in _ratios(seconds):
        shown = ", ".join(f"{s:.0f}" for s in seconds[name])
        print(f"| {name} | {middle:.2f} ({low:.2f} to {high:.2f}) | {shown} |")
    if json_file is not None:
        json_file.write_text(json.dumps({"epochs": epochs, "seconds": seconds}, indent=2) + "\n")


def _ratios(seconds: dict[str, list[float]]) -> Iterator[tuple[str, float, float, float]]:
    for name, measured in seconds.items():
        ratios = np.array(measured) / np.array(seconds[SEPARATE])
        yield name, float(ratios.min()), float(np.median(ratios)), float(ratios.max())


def _train(lam: tuple[str, ...], epochs: int, at_once: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        command = f"-m experiments.train digits --seeds 0 --epochs {epochs}"
        grid = f"optimizer=ovsw lam={','.join(lam)}"
        more = ["--grids", grid, "--members-at-once", at_once, "--out", f"{folder}/run"]
        subprocess.run(
            [sys.executable, *command.split(), *more], check=True, stdout=subprocess.DEVNULL
        )


if __name__ == "__main__":
    tyro.cli(main)
