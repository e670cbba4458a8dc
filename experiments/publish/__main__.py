"""python -m experiments.publish NAME RUN [RUN ...]: makes a trained network part of the package."""

import sys
from pathlib import Path

import tyro

from experiments.publish.files import publish


def main(
    name: tyro.conf.Positional[str],
    runs: tyro.conf.Positional[tuple[Path, ...]],
    optimizer: str = "ovsw",
    seed: int = 0,
    data_dir: Path | None = None,
) -> None:
    """Makes a run's trained network part of the package, and prints its model card.

    Args:
      name: what `ovsw.models.pretrained` calls it.
      runs: run folders of the same settings; the first one has the network, and all of them say
        how accurate such trainings are.
      optimizer: the training whose network it is.
      seed: its seed; choose it before the runs, not by their accuracy.
      data_dir: folder of the TFDS data sets; None is the run's.
    """
    try:
        print(publish(name, runs, optimizer, seed, data_dir))
    except (OSError, ValueError) as error:
        sys.exit(f"{name} is not published: {error}")


if __name__ == "__main__":
    tyro.cli(main, prog="python -m experiments.publish")
