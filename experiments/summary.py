"""python -m experiments.summary RUN: writes a run's summary again, see `experiments.report`."""

import tyro

from experiments.report.summary import main

if __name__ == "__main__":
    tyro.cli(main)
