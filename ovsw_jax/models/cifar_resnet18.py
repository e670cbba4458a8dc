"""ResNet18 for CIFAR with one skip around every two binary convolutions."""

import jax
from flax import nnx

from ovsw_jax.models.basic_block import BasicBlock
from ovsw_jax.models.initializers import torch_uniform, torch_uniform_bias
from ovsw_jax.models.parts import (
    Activation,
    ConvFactory,
    batch_norm,
    check_images,
    global_average_pool,
    hardtanh,
    stem,
)
from ovsw_jax.nn._checks import check_counts
from ovsw_jax.nn.layers import BinaryConv


class CifarResNet18(nnx.Module):
    """ResNet18 for 32x32 images: 64-128-256-512 channels, two blocks a stage.

    19 binary convolutions with 11.16 million latent weights, the skips' 1x1 included.

    Example:
      >>> import jax.numpy as jnp, ovsw_jax as ovsw
      >>> from flax import nnx
      >>> model = nnx.eval_shape(lambda: ovsw.models.CifarResNet18(100, rngs=nnx.Rngs(0)))
      >>> nnx.eval_shape(lambda m, x: m(x), model, jnp.ones((1, 32, 32, 3))).shape
      (1, 100)

    Source: the network of the OvSW authors' code (facts only); He et al. 2016 for ResNet18.
    """

    def __init__(
        self,
        num_classes: int = 10,
        *,
        in_channels: int = 3,
        conv: ConvFactory = BinaryConv,
        activation: Activation = hardtanh,
        dtype: jax.typing.DTypeLike | None = None,
        rngs: nnx.Rngs,
    ):
        """Makes the network.

        Args:
          num_classes: number of logits.
          in_channels: channels of the images.
          conv: makes every convolution but the first and the last, those of the skips too.
          activation: of the blocks; the stem has none.
          dtype: of the arithmetic; None: that of input and parameters. Parameters are float32,
            logits float32 at least.
          rngs: random state, for `params`.

        Raises:
          ValueError: if `num_classes` or `in_channels` is no positive integer.
        """
        check_counts(num_classes=num_classes, in_channels=in_channels)
        self.conv1 = stem(in_channels, 64, kernel_init=torch_uniform, dtype=dtype, rngs=rngs)
        self.bn1 = batch_norm(64, rngs, dtype=dtype)
        self.in_channels = in_channels
        features = 64
        for number, width in enumerate((64, 128, 256, 512), start=1):
            layers = []
            for strides in (1 if number == 1 else 2, 1):
                layers.append(
                    BasicBlock(
                        features,
                        width,
                        strides,
                        conv=conv,
                        activation=activation,
                        dtype=dtype,
                        rngs=rngs,
                    )
                )
                features = width
            setattr(self, f"layer{number}", nnx.List(layers))
        self.bn2 = batch_norm(features, rngs)
        self.fc = nnx.Conv(
            features,
            num_classes,
            (1, 1),
            kernel_init=torch_uniform,
            bias_init=torch_uniform_bias(features),
            rngs=rngs,
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        """Images (batch, height, width, in_channels) to logits (batch, num_classes).

        Raises:
          ValueError: if the images have another shape.
        """
        check_images(x, self.in_channels)
        x = self.bn1(self.conv1(x))
        for number in range(1, 5):
            for block in getattr(self, f"layer{number}"):
                x = block(x)
        x = self.bn2(global_average_pool(x))
        return self.fc(x[:, None, None, :])[:, 0, 0, :]
