"""python -m experiments.report RUN [RUN ...]: writes the pages of run folders again."""

import sys
from pathlib import Path

import tyro

from experiments.report.html import write_report


def main(runs: tyro.conf.Positional[tuple[Path, ...]], images: bool = True) -> None:
    """Writes RUN/report.html, a page for the browser, from what each run folder holds.

    Args:
      runs: run folders written by python -m experiments.train.
      images: whether the page shows test images; pages that are passed on may have to leave them
        out.
    """
    if not runs:
        sys.exit("give at least one run folder: python -m experiments.report RUN [RUN ...]")
    for run in runs:
        try:
            print(write_report(run, images=images))
        except (OSError, ValueError) as error:
            sys.exit(f"no report of {run}: {error}")


if __name__ == "__main__":
    tyro.cli(main, prog="python -m experiments.report")
