"""A network that a run has trained: to answer with, to go on from, or to teach another one."""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from experiments import weights
from experiments.augment import standardise
from experiments.networks import Network


class Trained(NamedTuple):
    """A network with the weights that a training ended with."""

    network: Network
    params: Any
    statistics: Any
    data: weights.Data

    def logits(self, images: jax.typing.ArrayLike) -> jax.Array:
        """Logits in evaluation mode, as in the run's test.

        Args:
          images: uint8 (batch, height, width, channels), of the shape of `data.image_shape`.

        Returns:
          (batch, classes), in the order of `data.classes`.
        """
        mean, std = jnp.asarray(self.data.mean), jnp.asarray(self.data.std)
        shown = standardise(jnp.asarray(images), mean, std)
        return self.network.evaluate(self.params, self.statistics, shown)


def load_trained(run: str | Path, optimizer: str | None = None, seed: int | None = None) -> Trained:
    """What a finished run holds in its folder `weights`.

    Args:
      run: the run folder.
      optimizer: key of the optimizer; None is the run's first.
      seed: None is the run's first.

    Raises:
      ValueError: if `run` is no run folder, or keeps no such weights.
    """
    config = weights.config_of(Path(run))
    path = weights.kept(
        Path(run),
        config["optimizers"][0] if optimizer is None else optimizer,
        config["seeds"][0] if seed is None else seed,
    )
    data = weights.data_of(path)
    network = Network(
        config["network"],
        len(data.classes),
        data.image_shape,
        binary=config.get("binary", "both"),
        dtype=config.get("dtype", "float32"),
    )
    # Not mere shapes: the random keys of dropout and the like are in no file.
    made = jax.tree.map(lambda x: x[0], network.init(jax.random.key(0)[None]))
    return Trained(network, *weights.load(path, *made), data)


def load_teacher(run: Path, data: weights.Data) -> Trained:
    """The first training of a run, as the teacher of a network on `data`.

    Raises:
      ValueError: if it keeps no trained weights, or was trained on other classes or image shapes.
    """
    teacher = load_trained(run)
    weights.check_same_data(run, teacher.data, data)
    return teacher
