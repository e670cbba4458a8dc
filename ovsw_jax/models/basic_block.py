"""The block of ResNet18 for CIFAR: one skip around two binary convolutions."""

from typing import Any

import jax
from flax import nnx

from ovsw_jax.models.parts import Activation, ConvFactory, batch_norm, check_maps, hardtanh
from ovsw_jax.nn._checks import check_counts
from ovsw_jax.nn.layers import BinaryConv


class BasicBlock(nnx.Module):
    """conv - BN - activation - conv - BN, one skip around it all, activation.

    Where the shape changes, the skip is a 1x1 convolution, binary as the others, with batch norm.

    Example:
      >>> import jax.numpy as jnp, ovsw_jax as ovsw
      >>> from flax import nnx
      >>> block = ovsw.models.BasicBlock(8, 16, 2, rngs=nnx.Rngs(0))
      >>> block(jnp.ones((1, 6, 6, 8))).shape
      (1, 3, 3, 16)

    Source: He et al. 2016; binary skips as in the OvSW authors' code (facts only).
    """

    def __init__(
        self,
        in_features: int,
        features: int,
        strides: int = 1,
        *,
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
          conv: makes the convolutions, that of the skip too.
          activation: after the first batch norm and after the sum.
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
        self.shortcut: nnx.List[Any] = nnx.List([])
        if strides > 1 or in_features != features:
            reshape = conv(
                in_features, features, (1, 1), strides=strides, padding=0, dtype=dtype, rngs=rngs
            )
            self.shortcut = nnx.List([reshape, batch_norm(features, rngs, dtype=dtype)])
        self.activation = activation

    def __call__(self, x: jax.Array) -> jax.Array:
        """(batch, height, width, in_features) to (batch, height', width', features)."""
        x = check_maps(x, self.in_features)
        skip = x
        for layer in self.shortcut:
            skip = layer(skip)
        x = self.activation(self.bn1(self.conv1(x)))
        return self.activation(self.bn2(self.conv2(x)) + skip)
