"""The block of Bi-Real Net: a skip around every binary convolution."""

import jax
from flax import nnx

from ovsw_jax.models.parts import Activation, ConvFactory, batch_norm, check_maps, hardtanh
from ovsw_jax.models.shortcuts import ConvShortcut, Shortcut
from ovsw_jax.nn._checks import check_counts
from ovsw_jax.nn.layers import BinaryConv


class BiRealBlock(nnx.Module):
    """Two 3x3 convolutions, each with batch norm, a skip around it, and an activation.

    x <- activation(BN(conv(x)) + x), twice. Where the shape changes, the first skip is a
    `shortcut`; every other one is the identity.

    Example:
      >>> import jax.numpy as jnp, ovsw_jax as ovsw
      >>> from flax import nnx
      >>> block = ovsw.models.BiRealBlock(8, 16, 2, rngs=nnx.Rngs(0))
      >>> block(jnp.ones((1, 6, 6, 8))).shape
      (1, 3, 3, 16)

    Source: Liu et al. 2018, Bi-Real Net; hardtanh as in the OvSW authors' code (facts only).
    """

    def __init__(
        self,
        in_features: int,
        features: int,
        strides: int = 1,
        *,
        shortcut: Shortcut = ConvShortcut,
        conv: ConvFactory = BinaryConv,
        activation: Activation = hardtanh,
        dtype: jax.typing.DTypeLike | None = None,
        rngs: nnx.Rngs,
    ):
        """Makes the block.

        Args:
          in_features: channels of the input.
          features: channels of the output.
          strides: 2 halves the resolution.
          shortcut: makes the skip where the shape changes: `PadShortcut`, `ConvShortcut`, or
            `partial(ConvShortcut, average_pool=True)` as in Bi-Real Net itself.
          conv: makes the convolutions.
          activation: after every sum.
          dtype: of the arithmetic; None: that of input and parameters.
          rngs: random state, for `params`.
        """
        check_counts(in_features=in_features, features=features, strides=strides)
        self.in_features = in_features
        self.conv1 = conv(
            in_features, features, (3, 3), strides=strides, padding=1, dtype=dtype, rngs=rngs
        )
        self.bn1 = batch_norm(features, rngs, dtype=dtype)
        self.conv2 = conv(features, features, (3, 3), strides=1, padding=1, dtype=dtype, rngs=rngs)
        self.bn2 = batch_norm(features, rngs, dtype=dtype)
        same = strides == 1 and in_features == features
        self.shortcut = nnx.data(
            None if same else shortcut(in_features, features, strides, dtype=dtype, rngs=rngs)
        )
        self.activation = activation

    def __call__(self, x: jax.Array) -> jax.Array:
        """(batch, height, width, in_features) to (batch, height', width', features)."""
        x = check_maps(x, self.in_features)
        skip = x if self.shortcut is None else self.shortcut(x)
        x = self.activation(self.bn1(self.conv1(x)) + skip)
        return self.activation(self.bn2(self.conv2(x)) + x)
