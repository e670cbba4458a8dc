"""python -m experiments.figures RUN [RUN ...]: draws the figures of run folders again."""

import sys
from pathlib import Path

import tyro


def main(runs: tyro.conf.Positional[tuple[Path, ...]]) -> None:
    """Draws RUN/figures/*.png from what each run folder holds.

    Args:
      runs: run folders written by python -m experiments.train.
    """
    from experiments.figures import draw

    if not runs:
        sys.exit("give at least one run folder: python -m experiments.figures RUN [RUN ...]")
    for run in runs:
        try:
            paths = draw(run)
        except (OSError, ValueError) as error:
            sys.exit(f"no figures of {run}: {error}")
        for path in paths:
            print(path)


if __name__ == "__main__":
    tyro.cli(main)
