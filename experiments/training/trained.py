"""A network that a run has trained: to answer, to continue from, or to teach another one."""

from collections.abc import Collection
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from numpy.typing import NDArray

from experiments.config import Config
from experiments.data.augment import standardise
from experiments.data.batches import EVALUATION_BATCH
from experiments.run import weights
from experiments.training.networks import Network
from experiments.training.preprocessing import Images, Preprocessing


class Trained(NamedTuple):
    """A network with the weights that a training ended with.

    Attributes:
      network: as pure functions of parameters and statistics; `model` is the NNX module.
      params: its parameters.
      statistics: all else that it keeps from step to step.
      data: what it was trained on: `data.classes`, `data.image_shape`, mean and deviation.
      resizes: whether the run resized and cropped its images.
      source: which training of which run it is, in words.
      test_batch: images in a batch of the run's test.
    """

    network: Network
    params: Any
    statistics: Any
    data: weights.Data
    resizes: bool = False
    source: str = "a training"
    test_batch: int = EVALUATION_BATCH

    @property
    def model(self) -> nnx.Module:
        """The NNX module in evaluation mode; it takes what `preprocess` returns."""
        return self.network.module(self.params, self.statistics)

    @property
    def preprocess(self) -> Preprocessing:
        """Makes uint8 images what `model` takes, as the run did with its test images."""
        return Preprocessing(self.data, self.resizes)

    def logits(self, images: Images) -> jax.Array:
        """Logits in evaluation mode, as in the run's test.

        Args:
          images: uint8 (batch, height, width, channels), of the shape of `data.image_shape`, or a
            list of images (height, width, channels). If the run resized its images, so are those
            of other sizes.

        Returns:
          (batch, classes), in the order of `data.classes`.

        Raises:
          TypeError: if the images are of another dtype.
          ValueError: if they are of another shape.
        """
        return self.network.evaluate(self.params, self.statistics, self.preprocess(images))

    def predict(self, images: Images) -> NDArray[np.int32]:
        """The class of each image: its number in `data.classes`.

        The run's test images give what the run measured. They are taken in batches as in its test.

        Args:
          images: as for `logits`, any number.

        Returns:
          int32 (batch,); the number of classes where the logits hold NaN.

        Raises:
          TypeError, ValueError: as `logits`.
        """
        sized = np.asarray(self.preprocess.sized(images))
        batch = min(self.test_batch, len(sized)) or 1
        found = [
            _answers(self.network, self.params, self.statistics, _filled(part, batch), *self._norm)
            for part in np.split(sized, range(batch, len(sized), batch))
        ]
        return np.concatenate(found)[: len(sized)]

    @property
    def _norm(self) -> tuple[jax.Array, jax.Array]:
        return jnp.asarray(self.data.mean), jnp.asarray(self.data.std)

    def __repr__(self) -> str:
        count = sum(x.size for x in jax.tree.leaves(self.params))
        return (
            f"Trained({self.source}: {self.network.name}, {count:,} parameters, "
            f"{len(self.data.classes)} classes; {self.preprocess})"
        )


def _filled(images: NDArray[np.uint8], batch: int) -> NDArray[np.uint8]:
    """With black images up to a whole batch, so that one program is compiled."""
    missing = ((0, batch - len(images)), *[(0, 0)] * (images.ndim - 1))
    return np.pad(images, missing)


@partial(jax.jit, static_argnums=0)
def _answers(
    network: Network, params: Any, statistics: Any, images: jax.Array, mean: Any, std: Any
) -> jax.Array:
    logits = network.evaluate(params, statistics, standardise(images, mean, std))
    answered = ~jnp.any(jnp.isnan(logits), -1)
    return jnp.where(answered, jnp.argmax(logits, -1), logits.shape[-1]).astype(jnp.int32)


def load_trained(
    run: str | Path,
    optimizer: str | None = None,
    seed: int | None = None,
    own: str | Collection[str | None] = (),
) -> Trained:
    """What a finished run holds in its folder `weights`; of a sweep, an optimizer's best point.

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
    planned = weights.optimizers_of(config)
    optimizer = (planned or config["optimizers"])[0] if optimizer is None else optimizer
    seed = config["seeds"][0] if seed is None else seed
    dtype = config.get("dtype") or "float32"
    own = (own,) if isinstance(own, str) else own  # of which a name could be a part
    _check_own(run, name, own)
    try:
        Config().at({"binary": binary, "dtype": dtype})
    except ValueError as error:
        raise ValueError(f"{Path(run) / 'config.json'}: {error}") from error
    path = weights.kept(Path(run), optimizer, seed)
    data = weights.data_of(path)
    name = weights.point_of(path).get("network", name)  # which a sweep may vary
    _check_own(run, name, own)
    network = Network(name, len(data.classes), data.image_shape, binary=binary, dtype=dtype)
    # Not mere shapes: the random keys of dropout and the like are in no file.
    made = jax.tree.map(lambda x: x[0], network.init(jax.random.key(0)[None]))
    streamed = config.get("image_size") is not None
    return Trained(
        network,
        *weights.load(path, *made),
        data,
        resizes=streamed,
        source=f"{str(run)!r}, {optimizer}, seed {seed}",
        test_batch=int(config["batch_size"]) if streamed else EVALUATION_BATCH,
    )


def _check_own(run: str | Path, name: str, own: Collection[str | None]) -> None:
    if ":" in name and name not in own:
        raise ValueError(
            f"run folder {run} is of network {name!r}, which is not imported because a folder says "
            "so: that would run its code. If you trust it, name it yourself: --teacher-network "
            f"{name}, or in Python own=[{name!r}]."
        )


def load_teacher(run: Path, data: weights.Data, own: Collection[str | None] = ()) -> Trained:
    """The first training of a run, as the teacher of a network on `data`.

    Raises:
      ValueError: as `load_trained`; also if it was trained on other classes or image shapes.
    """
    teacher = load_trained(run, own=own)
    weights.check_same_data(run, teacher.data, data)
    return teacher
