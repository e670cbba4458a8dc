"""What a run did to a test image before its network saw it, for images of any program."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from experiments.data import image_file
from experiments.data.augment import standardise
from experiments.data.streamed import shorter_side
from experiments.run.weights import Data

Images = jax.typing.ArrayLike | Sequence[jax.typing.ArrayLike]


@dataclass(frozen=True)
class Preprocessing:
    """Called with uint8 images; returns float32 images as the network takes them.

    Attributes:
      data: the data set of the run: shape of its images, mean and deviation of their channels.
      resizes: whether images of other sizes are resized and cropped, as those that the run streamed
        from disk were. Else they are refused.
    """

    data: Data
    resizes: bool

    def __call__(self, images: Images) -> jax.Array:
        """float32 (batch, height, width, channels), standardised; arguments as for `sized`."""
        mean, std = jnp.asarray(self.data.mean), jnp.asarray(self.data.std)
        return standardise(jnp.asarray(self.sized(images)), mean, std)

    def sized(self, images: Images) -> jax.typing.ArrayLike:
        """uint8 images of the run's size.

        Args:
          images: uint8 (batch, height, width, channels), or a list of (height, width, channels).
            Those of the run's size stay as they are.

        Raises:
          TypeError: if the images are of another dtype.
          ValueError: if they are of another shape, and the run resized none.
        """
        several: Any = images
        listed = isinstance(images, list | tuple) and all(hasattr(x, "dtype") for x in images)
        given: list[Any] = list(several) if listed else [_array(several)]
        for array in given:
            _check_dtype(array)
        if not listed and self._has_size(given[0], 4):
            return given[0]
        whole = given if listed else list(given[0]) if given[0].ndim == 4 else []
        if not whole or not all(self._has_size(x, 3) or self._is_resized(x) for x in whole):
            odd = next((x for x in whole if not self._has_size(x, 3)), np.zeros(0))
            raise ValueError(self._message(odd.shape if listed else given[0].shape))
        return np.stack([self._sized(np.asarray(x)) for x in whole])

    def _has_size(self, x: Any, ndim: int) -> bool:
        return x.ndim == ndim and x.shape[-3:] == self.data.image_shape

    def _is_resized(self, x: Any) -> bool:
        return self.resizes and x.ndim == 3 and x.shape[-1] in (1, 3) and min(x.shape) > 0

    def _sized(self, x: NDArray[np.uint8]) -> NDArray[np.uint8]:
        size = self.data.image_shape[0]
        return x if self._has_size(x, 3) else image_file.centre(x, shorter_side(size), size)

    def _message(self, shape: tuple[int, ...]) -> str:
        sizes = ", ".join(map(str, self.data.image_shape))
        channels = "or any height and width with 1 or 3 channels, " if self.resizes else ""
        other = "" if self.resizes else "; resize other sizes, as you did the run's"
        return (
            f"images have shape {shape}, and must have (batch, {sizes}), {channels}batch, height, "
            "width and channels, or be a list of (height, width, channels). images[None] makes a "
            f"batch of one image, images[..., None] adds the axis of a single channel{other}."
        )

    def __repr__(self) -> str:
        size = self.data.image_shape[0]
        others = (
            f"others resized (shorter side {shorter_side(size)}) and cropped"
            if self.resizes
            else "others refused"
        )
        return f"uint8 images {self.data.image_shape}, {others}"


def _array(images: Any) -> Any:
    if hasattr(images, "dtype"):
        return images
    try:
        return np.asarray(images)
    except ValueError as error:  # lists of unequal lengths
        raise TypeError(
            f"images are a {type(images).__name__} that is no array ({error}): give a uint8 array "
            "(batch, height, width, channels), or a list of arrays (height, width, channels)."
        ) from error


def _check_dtype(images: Any) -> None:
    if images.dtype != np.uint8:
        raise TypeError(
            f"images are {images.dtype}, and must be uint8 from 0 to 255, as in the data set: they "
            "are standardised here. Convert them: (255 * images).round().astype('uint8') if they "
            "are from 0 to 1, images.astype('uint8') if they are from 0 to 255."
        )
