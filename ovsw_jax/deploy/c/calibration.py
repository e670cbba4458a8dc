"""How large the numbers of a network become, for C without floats."""

import functools
from typing import Any

import jax
import numpy as np

from ovsw_jax.deploy.network import FrozenNetwork
from ovsw_jax.deploy.run_jax import greatest

_AT_ONCE = 64


def checked_calibration(network: FrozenNetwork, images: Any) -> np.ndarray:
    """Images as (images, *input_shape), float32.

    Raises:
      ValueError: if there are none, or they have another shape, or are not finite.
      TypeError: if they are no real numbers.
    """
    x = np.asarray(images)
    if not (np.issubdtype(x.dtype, np.floating) or np.issubdtype(x.dtype, np.integer)):
        raise TypeError(f"calibration of {x.dtype} holds no real numbers: give float32 images.")
    if x.shape[1:] != network.input_shape or x.ndim == 0 or len(x) == 0:
        raise ValueError(
            f"calibration of shape {x.shape} does not fit: give some images of the training set, "
            f"(images, {', '.join(map(str, network.input_shape))}), preprocessed."
        )
    x = x.astype(np.float32)
    if not np.isfinite(x).all():
        raise ValueError("calibration holds numbers that are not finite: give preprocessed images.")
    return x


def calibrated(network: FrozenNetwork, images: np.ndarray) -> np.ndarray:
    """The greatest magnitude of each result, the input first: (1 + nodes,)."""
    compiled = jax.jit(functools.partial(greatest, network.graph))
    parts = [compiled(images[n : n + _AT_ONCE]) for n in range(0, len(images), _AT_ONCE)]
    largest: np.ndarray = np.max(np.stack([np.asarray(part) for part in parts]), 0)
    return largest
