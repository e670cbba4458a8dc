"""A network that a run has trained: to answer, to continue from, or to teach another one."""

from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.config import Config
from experiments.data.augment import standardise
from experiments.run import weights
from experiments.training.networks import Network


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

        Raises:
          TypeError: if the images are of another dtype.
          ValueError: if they are of another shape.
        """
        mean, std = jnp.asarray(self.data.mean), jnp.asarray(self.data.std)
        shown = standardise(_checked(images, self.data.image_shape), mean, std)
        return self.network.evaluate(self.params, self.statistics, shown)


def _checked(images: jax.typing.ArrayLike, image_shape: tuple[int, ...]) -> jax.Array:
    given = images if isinstance(images, jax.Array) else np.asarray(images)
    if given.dtype != np.uint8:
        raise TypeError(
            f"images are {given.dtype}, and must be uint8 from 0 to 255, as in the data set: they "
            "are standardised here. Convert them: (255 * images).round().astype('uint8') if they "
            "are from 0 to 1, images.astype('uint8') if they are from 0 to 255."
        )
    if given.ndim != 4 or given.shape[1:] != image_shape:
        sizes = ", ".join(map(str, image_shape))
        raise ValueError(
            f"images have shape {given.shape}, and must have (batch, {sizes}): batch, height, "
            "width and channels. images[None] makes a batch of one image, images[..., None] adds "
            "the axis of a single channel; resize other sizes."
        )
    return jnp.asarray(given)


def load_trained(
    run: str | Path,
    optimizer: str | None = None,
    seed: int | None = None,
    own: str | Collection[str | None] = (),
) -> Trained:
    """What a finished run holds in its folder `weights`.

    Args:
      run: the run folder.
      optimizer: key of the optimizer; None is the run's first.
      seed: None is the run's first.
      own: networks of your own, as package.module:Class, that may be imported. That a run folder
        names one is not enough: the folder may be a stranger's.

    Raises:
      ValueError: if `run` is no run folder, keeps no such weights, or is of a network that may not
        be imported.
    """
    config = weights.config_of(Path(run))
    if lacking := [name for name in ("network", "optimizers", "seeds") if not config.get(name)]:
        raise ValueError(f"{run} is no run folder: its config.json does not say {lacking[0]}.")
    name, binary = config["network"], config.get("binary") or "both"
    dtype = config.get("dtype") or "float32"
    own = (own,) if isinstance(own, str) else own  # of which a name could be a part
    if ":" in name and name not in own:
        raise ValueError(
            f"run folder {run} is of network {name!r}, which is not imported because a folder says "
            "so: that would run its code. If you trust it, name it yourself: --teacher-network "
            f"{name}, or in Python own=[{name!r}]."
        )
    try:
        Config().at({"binary": binary, "dtype": dtype})
    except ValueError as error:
        raise ValueError(f"{Path(run) / 'config.json'}: {error}") from error
    path = weights.kept(
        Path(run),
        config["optimizers"][0] if optimizer is None else optimizer,
        config["seeds"][0] if seed is None else seed,
    )
    data = weights.data_of(path)
    network = Network(name, len(data.classes), data.image_shape, binary=binary, dtype=dtype)
    # Not mere shapes: the random keys of dropout and the like are in no file.
    made = jax.tree.map(lambda x: x[0], network.init(jax.random.key(0)[None]))
    return Trained(network, *weights.load(path, *made), data)


def load_teacher(run: Path, data: weights.Data, own: Collection[str | None] = ()) -> Trained:
    """The first training of a run, as the teacher of a network on `data`.

    Raises:
      ValueError: as `load_trained`; also if it was trained on other classes or image shapes.
    """
    teacher = load_trained(run, own=own)
    weights.check_same_data(run, teacher.data, data)
    return teacher
