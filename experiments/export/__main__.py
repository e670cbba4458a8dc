"""python -m experiments.export RUN: writes the trained network of a run for use elsewhere."""

import sys
from pathlib import Path

import tyro

from experiments.config.choices import choose
from experiments.export.report import export, print_export
from experiments.export.targets import TARGETS


def main(
    run: tyro.conf.Positional[Path],
    to: tuple[str, ...] = tuple(TARGETS),
    out: Path | None = None,
    optimizer: str | None = None,
    seed: int | None = None,
    data_dir: Path | None = None,
) -> None:
    """Writes the trained network of a run as files for use elsewhere.

    Each is asked about all test images of the run and compared with the training network. What
    that takes and is not installed leaves a target unchecked, with a note.

    Args:
      run: run folder written by python -m experiments.train.
      to: what to write: any of file (one bit per weight, always written), onnx, c.
      out: folder; None is RUN/export. Files of an earlier export are replaced.
      optimizer: of the training whose network it is; None is the run's first.
      seed: of that training; None is the run's first.
      data_dir: folder of the TFDS data sets; None is the run's.
    """
    try:
        for name in to:
            choose("to", name, TARGETS)
        folder = run / "export" if out is None else out
        print_export(export(run, to, folder, optimizer, seed, data_dir), folder)
    except (OSError, ValueError) as error:
        sys.exit(f"no export of {run}: {error}")


if __name__ == "__main__":
    tyro.cli(main, prog="python -m experiments.export")
