"""Skips around a convolution that changes the shape of its input."""

from typing import Protocol

import jax
import jax.numpy as jnp
from flax import nnx

from ovsw_jax.models.common import check_maps, torch_uniform
from ovsw_jax.nn._checks import check_counts
from ovsw_jax.nn.batch_norm import BatchNorm


class Shortcut(Protocol):
    """Makes the skip of a block that changes the shape."""

    def __call__(
        self,
        in_features: int,
        features: int,
        strides: int,
        *,
        dtype: jax.typing.DTypeLike | None,
        rngs: nnx.Rngs,
    ) -> nnx.Module:
        """A module from (batch, h, w, in_features) to (batch, h/strides, w/strides, features).

        Sizes that strides don't divide are rounded up.
        """


class PadShortcut(nnx.Module):
    """An average pool whose channels are padded with zeros, half before and half after.

    Example:
      >>> import jax.numpy as jnp, ovsw_jax as ovsw
      >>> from flax import nnx
      >>> skip = ovsw.models.PadShortcut(2, 4, 2, rngs=nnx.Rngs(0))
      >>> skip(jnp.ones((1, 4, 4, 2)))[0, 0, 0].tolist()
      [0.0, 1.0, 1.0, 0.0]

    Source: He et al. 2016, their option A, with a pool.
    """

    def __init__(
        self,
        in_features: int,
        features: int,
        strides: int,
        *,
        dtype: jax.typing.DTypeLike | None = None,
        rngs: nnx.Rngs,
    ):
        """Makes the skip; it has no parameters, and keeps the dtype of its input.

        Raises:
          ValueError: if the output has fewer channels than the input.
        """
        del dtype, rngs
        check_counts(in_features=in_features, features=features, strides=strides)
        if features < in_features:
            raise ValueError(
                f"features={features} is less than in_features={in_features}: a PadShortcut adds "
                "channels of zeros, and can't drop any. Use widths that do not decrease, or a "
                "ConvShortcut."
            )
        self.in_features = in_features
        self.strides, self.new_features = strides, features - in_features

    def __call__(self, x: jax.Array) -> jax.Array:
        """(batch, height, width, in_features) to (batch, height', width', features)."""
        x = check_maps(x, self.in_features)
        before = self.new_features // 2
        pads = ((0, 0), (0, 0), (0, 0), (before, self.new_features - before))
        return jnp.pad(_average_pool(x, self.strides), pads)


class ConvShortcut(nnx.Module):
    """A real-valued 1x1 convolution and batch norm.

    The convolution takes every second pixel, as in the OvSW authors' code. With
    `average_pool=True` it takes the mean of 2x2 pixels instead, as in Bi-Real Net and ReActNet.

    Example:
      >>> import jax.numpy as jnp, ovsw_jax as ovsw
      >>> from flax import nnx
      >>> skip = ovsw.models.ConvShortcut(2, 4, 2, rngs=nnx.Rngs(0))
      >>> skip(jnp.ones((1, 4, 4, 2))).shape
      (1, 2, 2, 4)

    Source: He et al. 2016, their option B; Liu et al. 2018, Bi-Real Net, for the pool.
    """

    def __init__(
        self,
        in_features: int,
        features: int,
        strides: int,
        *,
        average_pool: bool = False,
        dtype: jax.typing.DTypeLike | None = None,
        rngs: nnx.Rngs,
    ):
        """Makes the skip.

        Args:
          in_features: channels of the input.
          features: channels of the output.
          strides: 2 halves the resolution.
          average_pool: pool before the convolution instead of skipping pixels.
          dtype: of the arithmetic; None: that of input and parameters.
          rngs: random state, for `params`.
        """
        check_counts(in_features=in_features, features=features, strides=strides)
        self.in_features = in_features
        self.pooled = strides if average_pool else 1
        self.conv = nnx.Conv(
            in_features,
            features,
            (1, 1),
            strides=strides // self.pooled,
            use_bias=False,
            kernel_init=torch_uniform,
            dtype=dtype,
            rngs=rngs,
        )
        self.bn = BatchNorm(features, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """(batch, height, width, in_features) to (batch, height', width', features)."""
        x = check_maps(x, self.in_features)
        return self.bn(self.conv(_average_pool(x, self.pooled)))


def _average_pool(x: jax.Array, strides: int) -> jax.Array:
    """Means of strides x strides pixels; of fewer at the end of a size that isn't divisible.

    So its output is as large as that of a 3x3 convolution with padding 1 and these strides.
    """
    if strides == 1:
        return x
    window = (strides, strides)
    whole = all(n % strides == 0 for n in x.shape[1:3])
    with jax.numpy_dtype_promotion("standard"):  # it divides by an integer
        return nnx.avg_pool(x, window, strides=window, padding="SAME", count_include_pad=whole)
