"""Where the taps of a convolution's kernel touch its input."""

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import jax
import numpy as np
from jax import lax


class Taps(NamedTuple):
    """Geometry of a convolution, one entry per spatial axis.

    A tap is one position in the kernel, by its index.

    Attributes:
      kernel_size: of the kernel.
      strides: between windows.
      dilation: between the taps of a window.
      pads: (low, high) padding.
      spatial: shape of the input.
    """

    kernel_size: tuple[int, ...]
    strides: tuple[int, ...]
    dilation: tuple[int, ...]
    pads: tuple[tuple[int, int], ...]
    spatial: tuple[int, ...]

    @property
    def outputs(self) -> tuple[int, ...]:
        """Spatial shape of the result; not above 0 where the kernel does not fit."""
        return tuple(
            (n + low + high - (k - 1) * d - 1) // s + 1
            for n, k, s, d, (low, high) in zip(
                self.spatial, self.kernel_size, self.strides, self.dilation, self.pads, strict=True
            )
        )

    def all(self) -> Iterator[tuple[int, ...]]:
        """The taps, in the order of the kernel."""
        return itertools.product(*map(range, self.kernel_size))

    def inside(self, tap: tuple[int, ...]) -> np.ndarray:
        """Whether a tap sees the input and not the padding: bool of shape `outputs`."""
        inside = np.ones((), bool)
        for axis, at in enumerate(tap):
            seen = np.arange(self.outputs[axis]) * self.strides[axis]
            seen = seen + at * self.dilation[axis] - self.pads[axis][0]
            inside = np.logical_and(inside[..., None], (seen >= 0) & (seen < self.spatial[axis]))
        return inside

    def pad(self, x: jax.Array) -> jax.Array:
        """(batch, *spatial, channels) with zeros around it."""
        return jax.numpy.pad(x, ((0, 0), *self.pads, (0, 0)))

    def seen(self, padded: jax.Array, tap: tuple[int, ...]) -> jax.Array:
        """What a tap sees of a padded input, for each output: (batch, *outputs, channels)."""
        starts = [at * d for at, d in zip(tap, self.dilation, strict=True)]
        limits = [
            start + (n - 1) * s + 1
            for start, n, s in zip(starts, self.outputs, self.strides, strict=True)
        ]
        batch, channels = padded.shape[0], padded.shape[-1]
        return lax.slice(padded, (0, *starts, 0), (batch, *limits, channels), (1, *self.strides, 1))
