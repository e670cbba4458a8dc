"""ResNet20 for CIFAR with a skip around every binary convolution."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from ovsw_jax.models.parts import batch_norm, check_images, global_average_pool, hardtanh, stem
from ovsw_jax.nn.layers import BinaryConv


class SkipConvBlock(nnx.Module):
    """Two binary 3x3 convolutions, each with batch norm, a skip around it, and a hardtanh.

    Where the block downsamples, the first skip is a 2x2 average pool whose channels are padded
    with zeros, half before and half after.
    """

    def __init__(self, in_features: int, features: int, strides: int, *, rngs: nnx.Rngs):
        """Makes the block; strides of 2 halve the resolution."""
        self.conv1 = BinaryConv(
            in_features, features, (3, 3), strides=strides, padding=1, rngs=rngs
        )
        self.bn1 = batch_norm(features, rngs)
        self.conv2 = BinaryConv(features, features, (3, 3), padding=1, rngs=rngs)
        self.bn2 = batch_norm(features, rngs)
        self.strides = strides
        self.new_features = features - in_features

    def __call__(self, x: jax.Array) -> jax.Array:
        """(batch, height, width, in_features) to (batch, height', width', features)."""
        x = hardtanh(self.bn1(self.conv1(x)) + self._skip(x))
        return hardtanh(self.bn2(self.conv2(x)) + x)

    def _skip(self, x: jax.Array) -> jax.Array:
        if self.strides > 1:
            window = (self.strides, self.strides)
            x = nnx.avg_pool(x, window, strides=window)
        before = self.new_features // 2
        return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (before, self.new_features - before)))


class SkipConvResNet(nnx.Module):
    """Stages of `SkipConvBlock`s between a real-valued stem and a real-valued linear head."""

    def __init__(
        self,
        num_classes: int,
        *,
        widths: Sequence[int],
        blocks: int,
        in_channels: int,
        stem_strides: int = 1,
        rngs: nnx.Rngs,
    ):
        """Makes the network.

        Args:
          num_classes: number of logits.
          widths: channels of each stage; every stage but the first halves the resolution.
          blocks: blocks a stage.
          in_channels: channels of the images.
          stem_strides: of the first convolution; 4 makes 8x8 maps of 32x32 images.
          rngs: random state, for `params`.
        """
        self.conv1 = stem(in_channels, widths[0], rngs, strides=stem_strides)
        self.bn1 = batch_norm(widths[0], rngs)
        self.stages, self.in_channels = len(widths), in_channels
        self.multiple = stem_strides * 2 ** (len(widths) - 1)
        features = widths[0]
        for number, width in enumerate(widths, start=1):
            layers = []
            for block in range(blocks):
                strides = 2 if number > 1 and block == 0 else 1
                layers.append(SkipConvBlock(features, width, strides, rngs=rngs))
                features = width
            setattr(self, f"layer{number}", nnx.List(layers))
        self.bn2 = batch_norm(features, rngs)
        self.linear = nnx.Linear(features, num_classes, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Images (batch, height, width, in_channels) to logits (batch, num_classes).

        Raises:
          ValueError: if the images have another shape, or can't be halved from stage to stage.
        """
        check_images(x, self.in_channels, self.multiple)
        x = hardtanh(self.bn1(self.conv1(x)))
        for number in range(1, self.stages + 1):
            for block in getattr(self, f"layer{number}"):
                x = block(x)
        return self.linear(self.bn2(global_average_pool(x)))


class CifarResNet20(SkipConvResNet):
    """ResNet20 for 32x32 images: 16-32-64 channels, three blocks a stage, 18 binary convolutions.

    Example:
      >>> import jax.numpy as jnp, ovsw_jax as ovsw
      >>> from flax import nnx
      >>> model = ovsw.models.CifarResNet20(10, rngs=nnx.Rngs(0))
      >>> model(jnp.ones((2, 32, 32, 3))).shape
      (2, 10)

    Source: the network of the OvSW authors' code (facts only); He et al. 2016 for ResNet20.
    """

    def __init__(self, num_classes: int = 10, *, in_channels: int = 3, rngs: nnx.Rngs):
        """Makes the network with Kaiming-normal weights."""
        super().__init__(
            num_classes, widths=(16, 32, 64), blocks=3, in_channels=in_channels, rngs=rngs
        )


class SmallResNet(SkipConvResNet):
    """A small relative of ResNet20, one block a stage.

    Example:
      >>> import jax.numpy as jnp, ovsw_jax as ovsw
      >>> from flax import nnx
      >>> model = ovsw.models.SmallResNet(10, in_channels=1, rngs=nnx.Rngs(0))
      >>> model(jnp.ones((2, 8, 8, 1))).shape
      (2, 10)

    Source: ours, for the default experiment and for studies on a CPU.
    """

    def __init__(
        self,
        num_classes: int = 10,
        *,
        in_channels: int = 3,
        widths: Sequence[int] = (16, 32),
        stem_strides: int = 1,
        rngs: nnx.Rngs,
    ):
        """Makes the network with Kaiming-normal weights; arguments as in `SkipConvResNet`."""
        super().__init__(
            num_classes,
            widths=widths,
            blocks=1,
            in_channels=in_channels,
            stem_strides=stem_strides,
            rngs=rngs,
        )
