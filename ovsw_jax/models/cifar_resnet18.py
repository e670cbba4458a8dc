"""ResNet18 for CIFAR with one skip around every two binary convolutions."""

import jax
from flax import nnx

from ovsw_jax.models.parts import batch_norm, check_images, global_average_pool, hardtanh, stem
from ovsw_jax.nn.layers import BinaryConv, kaiming_normal


class BasicBlock(nnx.Module):
    """conv - BN - hardtanh - conv - BN, one skip around it all, hardtanh.

    Where the shape changes, the skip is a binary 1x1 convolution with batch norm.
    """

    def __init__(self, in_features: int, features: int, strides: int, *, rngs: nnx.Rngs):
        """Makes the block; strides of 2 halve the resolution."""
        self.conv1 = BinaryConv(
            in_features, features, (3, 3), strides=strides, padding=1, rngs=rngs
        )
        self.bn1 = batch_norm(features, rngs)
        self.conv2 = BinaryConv(features, features, (3, 3), padding=1, rngs=rngs)
        self.bn2 = batch_norm(features, rngs)
        self.shortcut: nnx.List[nnx.Module] = nnx.List([])
        if strides > 1 or in_features != features:
            self.shortcut = nnx.List(
                [
                    BinaryConv(
                        in_features, features, (1, 1), strides=strides, padding=0, rngs=rngs
                    ),
                    batch_norm(features, rngs),
                ]
            )

    def __call__(self, x: jax.Array) -> jax.Array:
        """(batch, height, width, in_features) to (batch, height', width', features)."""
        skip = x
        for layer in self.shortcut:
            skip = layer(skip)
        x = hardtanh(self.bn1(self.conv1(x)))
        return hardtanh(self.bn2(self.conv2(x)) + skip)


class CifarResNet18(nnx.Module):
    """ResNet18 for 32x32 images: 64-128-256-512 channels, two blocks a stage.

    19 binary convolutions with 11.16 million latent weights, the skips' 1x1 included.

    Example:
      >>> import jax.numpy as jnp, ovsw_jax as ovsw
      >>> from flax import nnx
      >>> model = ovsw.models.CifarResNet18(100, rngs=nnx.Rngs(0))
      >>> model(jnp.ones((1, 32, 32, 3))).shape
      (1, 100)

    Source: the network of the OvSW authors' code (facts only); He et al. 2016 for ResNet18.
    """

    def __init__(self, num_classes: int = 10, *, in_channels: int = 3, rngs: nnx.Rngs):
        """Makes the network with Kaiming-normal weights."""
        self.conv1 = stem(in_channels, 64, rngs)
        self.bn1 = batch_norm(64, rngs)
        self.in_channels = in_channels
        features = 64
        for number, width in enumerate((64, 128, 256, 512), start=1):
            strides = 1 if number == 1 else 2
            setattr(
                self,
                f"layer{number}",
                nnx.List(
                    [
                        BasicBlock(features, width, strides, rngs=rngs),
                        BasicBlock(width, width, 1, rngs=rngs),
                    ]
                ),
            )
            features = width
        self.bn2 = batch_norm(features, rngs)
        self.fc = nnx.Conv(features, num_classes, (1, 1), kernel_init=kaiming_normal, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Images (batch, height, width, in_channels) to logits (batch, num_classes).

        Raises:
          ValueError: if the images have another shape.
        """
        check_images(x, self.in_channels, 1)
        x = self.bn1(self.conv1(x))
        for number in range(1, 5):
            for block in getattr(self, f"layer{number}"):
                x = block(x)
        x = self.bn2(global_average_pool(x))
        return self.fc(x[:, None, None, :])[:, 0, 0, :]
