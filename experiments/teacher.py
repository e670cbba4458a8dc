"""A trained network whose distribution over the classes another one learns."""

from pathlib import Path
from typing import Any, NamedTuple

from experiments import weights
from experiments.networks import Network


class Teacher(NamedTuple):
    """A network in evaluation mode, with its weights."""

    network: Network
    params: Any
    statistics: Any


def load_teacher(run: Path, classes: int, image_shape: tuple[int, ...]) -> Teacher:
    """The first training of a run folder, real-valued or binary.

    Args:
      run: its folder.
      classes: number of classes of the student's data.
      image_shape: (height, width, channels) of the student's images.

    Raises:
      ValueError: if it keeps no trained weights, or they don't fit classes and images.
    """
    config = weights.config_of(run)
    network = Network(
        config["network"],
        classes,
        image_shape,
        binary=config.get("binary", "both"),
        dtype=config.get("dtype", "float32"),
    )
    path = weights.find(run, config["optimizers"][0], config["seeds"][0])
    return Teacher(network, *weights.load(path, *network.shapes))
