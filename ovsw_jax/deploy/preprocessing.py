"""How a raw image becomes the input of a network."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    r"""How pixels from 0 to 255 become the input of a network.

    .. math::
      x = (p / 255 - \text{mean}) / \text{std}

    per channel.

    Attributes:
      mean: of each channel, of pixels from 0 to 1.
      std: of each channel, likewise; above 0.

    Called with images it does that.

    Raises:
      ValueError: if they are not as many finite numbers each, or a std is not above 0.

    >>> Preprocessing(mean=(0.5,), std=(0.25,)).std
    (0.25,)

    Source: the usual standardisation of images.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            object.__setattr__(self, name, _numbers(name, getattr(self, name)))
        if len(self.mean) != len(self.std) or not self.mean or min(self.std) <= 0:
            raise ValueError(
                f"mean={self.mean} and std={self.std} must have one number per channel each, and "
                "std must be above 0: each pixel becomes (pixel / 255 - mean) / std."
            )

    def __call__(self, images: jax.typing.ArrayLike) -> jax.Array:
        """What the network takes.

        Args:
          images: uint8 (..., channels), pixels from 0 to 255.

        Returns:
          float32, of the same shape.

        Raises:
          TypeError: if they are of another dtype.
          ValueError: if they have another number of channels.
        """
        pixels = jnp.asarray(images)
        if pixels.dtype != jnp.uint8:
            raise TypeError(
                f"images of {pixels.dtype} are no uint8 pixels: give raw images from 0 to 255, as "
                "a file holds them."
            )
        if len(self.mean) > 1 and pixels.shape[-1:] != (len(self.mean),):
            raise ValueError(
                f"images of shape {pixels.shape} do not fit: their last axis must be the "
                f"{len(self.mean)} channels."
            )
        mean, std = (jnp.asarray(x, jnp.float32) for x in (self.mean, self.std))
        return (pixels.astype(jnp.float32) / 255 - mean) / std


def checked_preprocessing(given: Preprocessing | Mapping[str, Any] | None) -> Preprocessing | None:
    """What a user gave, as a `Preprocessing`.

    Raises:
      ValueError: if it is a mapping without `mean` and `std`, or with more.
      TypeError: if it is none.
    """
    if given is None or isinstance(given, Preprocessing):
        return given
    if not isinstance(given, Mapping):
        raise TypeError(
            f"preprocessing={given!r} is no mapping: give ovsw.deploy.Preprocessing(mean, std), a "
            'mapping such as {"mean": [0.5], "std": [0.25]}, or None.'
        )
    if set(given) != {"mean", "std"}:
        raise ValueError(
            f"preprocessing has the keys {sorted(map(str, given))}: it needs mean and std, one "
            "number per channel, of pixels from 0 to 1."
        )
    return Preprocessing(**given)


def _numbers(name: str, values: Sequence[float]) -> tuple[float, ...]:
    try:
        numbers = tuple(float(value) for value in values)
    except (TypeError, ValueError, OverflowError):
        numbers = (math.nan,)
    if not all(map(math.isfinite, numbers)):
        raise ValueError(f"{name}={values!r} must hold one finite number per channel.")
    return numbers
