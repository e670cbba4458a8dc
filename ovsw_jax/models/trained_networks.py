"""Networks that come trained: `trained/` has the one-bit file, latent weights and card of each."""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from numpy.typing import NDArray

from ovsw_jax.deploy.file import load
from ovsw_jax.deploy.network import FrozenNetwork
from ovsw_jax.deploy.preprocessing import Preprocessing
from ovsw_jax.models.cifar_resnet import CifarResNet20, SmallResNet

FOLDER = Path(__file__).with_name("trained")
# How the module is made that the latent weights are of.
_MAKERS: Mapping[str, Any] = {
    "digits": functools.partial(SmallResNet, 10, in_channels=1),
    "cifar10-resnet20": functools.partial(CifarResNet20, 10),
}
NAMES = tuple(name for name in _MAKERS if (FOLDER / name).is_dir())


class Pretrained:
    """A trained network that comes with the package, made by `pretrained`.

    Attributes:
      name: which one it is.
      card: its model card, in Markdown: data, recipe, accuracy, licence, what it is not good for.

    Example:
      >>> import ovsw_jax as ovsw
      >>> ovsw.models.pretrained("digits").classes[3]
      '3'

    Source: ours; the card names the run.
    """

    def __init__(self, name: str):
        """Made by `pretrained`; reads the model card.

        Raises:
          ValueError: if there is no such network.
        """
        if name not in NAMES:
            known = ", ".join(map(repr, NAMES))
            raise ValueError(f"no network called {name!r} comes trained: there is {known}.")
        self.name = name
        self.card = self._read("README.md").decode()

    @functools.cached_property
    def frozen(self) -> FrozenNetwork:
        """The network with one bit per binary weight, which can be saved or exported.

        It takes what `preprocessing` returns.
        """
        return load(FOLDER / self.name / "network.safetensors")

    @property
    def classes(self) -> tuple[str, ...]:
        """Name of each class."""
        return self.frozen.classes or ()

    @property
    def preprocessing(self) -> Preprocessing:
        """How pixels become the input."""
        assert self.frozen.preprocessing is not None  # each file has it
        return self.frozen.preprocessing

    def predict(self, images: jax.typing.ArrayLike) -> NDArray[np.int32]:
        """The class of each image, by the one-bit network.

        Args:
          images: uint8 (batch, height, width, channels), of the size that the card names.

        Returns:
          int32 (batch,), places in `classes`.

        Raises:
          TypeError: if the images are of another dtype.
          ValueError: if they are of another shape.
        """
        logits = self.frozen(self.preprocessing(images))
        return np.asarray(jnp.argmax(logits, -1), np.int32)

    def model(self) -> nnx.Module:
        """A new NNX module with the latent weights, to train on; in evaluation mode at first.

        It takes what `preprocessing` returns.
        """
        from safetensors.numpy import (
            load as load_arrays,
        )  # here, as all else works where it is missing

        model: nnx.Module = _MAKERS[self.name](rngs=nnx.Rngs(0))
        arrays = load_arrays(self._read("latent.safetensors"))
        state = nnx.state(model)
        flat = {path: "/".join(map(str, path)) for path, _ in nnx.to_flat_state(state)}
        if differing := arrays.keys() ^ set(flat.values()):
            raise RuntimeError(f"{self.name} does not fit its network: {sorted(differing)[:3]}.")
        trained = [(path, jnp.asarray(arrays[key])) for path, key in flat.items()]
        nnx.update(model, nnx.from_flat_state(trained))
        model.eval()
        return model

    def _read(self, file: str) -> bytes:
        return (FOLDER / self.name / file).read_bytes()

    def __repr__(self) -> str:
        return f"<pretrained {self.name}: {len(self.classes)} classes, {self.frozen!r}>"


def pretrained(name: str) -> Pretrained:
    """A trained network, from the package alone.

    Args:
      name: `"digits"`: 8x8 gray images of digits, a small ResNet. What others there are, and how
        accurate they are, is in the guide "Networks that come trained".

    Returns:
      The network: `predict` classifies uint8 images by its one-bit form, `frozen` is that form,
      `model()` an NNX module with the latent weights to train on, `card` what to know of it.

    Raises:
      ValueError: if there is no such network.

    >>> import numpy as np, ovsw_jax as ovsw
    >>> net = ovsw.models.pretrained("digits")
    >>> net.predict(np.zeros((5, 8, 8, 1), np.uint8)).shape
    (5,)

    Source: ours; each card names data, recipe and commit.
    """
    return Pretrained(name)
