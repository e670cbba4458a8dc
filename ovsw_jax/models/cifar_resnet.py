"""Networks for CIFAR: ResNet18 of BasicBlocks, ResNet20 of BiRealBlocks, and a small relative."""

from collections.abc import Callable, Sequence

import jax
from flax import nnx

from ovsw_jax.models.blocks import BasicBlock, BiRealBlock
from ovsw_jax.models.common import (
    Activation,
    ConvFactory,
    apply_stages,
    check_images,
    global_average_pool,
    stem,
    torch_linear,
    torch_uniform,
    torch_uniform_bias,
)
from ovsw_jax.models.shortcuts import PadShortcut
from ovsw_jax.nn._checks import check_counts, is_count
from ovsw_jax.nn.batch_norm import BatchNorm
from ovsw_jax.nn.hardtanh import hardtanh
from ovsw_jax.nn.layers import BinaryConv, kaiming_normal


class CifarResNet18(nnx.Module):
    """ResNet18 for 32x32 images: 64-128-256-512 channels, two blocks per stage.

    19 binary convolutions with 11.16 million latent weights, the skips' 1x1 included.

    Attributes:
      remat_stages: how many of the first stages, whose maps are the largest, are computed again in
        the backward pass instead of kept: less memory, more time. 0 at first; set it at any time.

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
        self.bn1 = BatchNorm(64, dtype=dtype, rngs=rngs)
        self.stages, self.remat_stages, self.in_channels = 4, 0, in_channels
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
        self.bn2 = BatchNorm(features, rngs=rngs)
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
        x = apply_stages(self, x)
        x = self.bn2(global_average_pool(x))
        return self.fc(x[:, None, None, :])[:, 0, 0, :]


class _CifarResNet(nnx.Module):
    """Stages of `BiRealBlock`s between a real-valued stem and a real-valued linear head."""

    def __init__(
        self,
        num_classes: int,
        *,
        widths: Sequence[int],
        blocks: int,
        in_channels: int,
        stem_init: nnx.Initializer,
        stem_strides: int,
        linear: Callable[..., nnx.Linear],
        conv: ConvFactory,
        activation: Activation,
        dtype: jax.typing.DTypeLike | None,
        rngs: nnx.Rngs,
    ):
        check_counts(num_classes=num_classes, in_channels=in_channels, stem_strides=stem_strides)
        if not isinstance(widths, Sequence) or not widths or not all(map(is_count, widths)):
            raise ValueError(
                f"widths={widths!r} must hold the channels of one stage at least, as in (16,)."
            )
        # A wider kernel where the windows lie apart, so that every pixel is seen.
        kernel_size = 2 * max(1, stem_strides - 1) + 1
        self.conv1 = stem(
            in_channels,
            widths[0],
            kernel_init=stem_init,
            kernel_size=kernel_size,
            strides=stem_strides,
            dtype=dtype,
            rngs=rngs,
        )
        self.bn1 = BatchNorm(widths[0], dtype=dtype, rngs=rngs)
        self.stages, self.remat_stages, self.in_channels = len(widths), 0, in_channels
        self.multiple = stem_strides * 2 ** (len(widths) - 1)
        self.activation = activation
        features = widths[0]
        for number, width in enumerate(widths, start=1):
            layers = []
            for block in range(blocks):
                layers.append(
                    BiRealBlock(
                        features,
                        width,
                        2 if number > 1 and block == 0 else 1,
                        shortcut=PadShortcut,
                        conv=conv,
                        activation=activation,
                        dtype=dtype,
                        rngs=rngs,
                    )
                )
                features = width
            setattr(self, f"layer{number}", nnx.List(layers))
        self.bn2 = BatchNorm(features, rngs=rngs)
        self.linear = linear(features, num_classes, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Images (batch, height, width, in_channels) to logits (batch, num_classes).

        Raises:
          ValueError: if the images have another shape, or can't be halved from stage to stage.
        """
        check_images(x, self.in_channels, multiple=self.multiple)
        x = self.activation(self.bn1(self.conv1(x)))
        x = apply_stages(self, x)
        return self.linear(self.bn2(global_average_pool(x)))


class CifarResNet20(_CifarResNet):
    """ResNet20 for 32x32 images: 16-32-64 channels, three blocks per stage, 18 binary convolutions.

    Attributes:
      remat_stages: how many of the first stages, whose maps are the largest, are computed again in
        the backward pass instead of kept: less memory, more time. 0 at first; set it at any time.

    Example:
      >>> import jax.numpy as jnp, ovsw_jax as ovsw
      >>> from flax import nnx
      >>> model = nnx.eval_shape(lambda: ovsw.models.CifarResNet20(10, rngs=nnx.Rngs(0)))
      >>> nnx.eval_shape(lambda m, x: m(x), model, jnp.ones((2, 32, 32, 3))).shape
      (2, 10)

    Source: the network of the OvSW authors' code (facts only); He et al. 2016 for ResNet20.
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
          conv: makes every convolution but the first.
          activation: after the stem and after every skip.
          dtype: of the arithmetic; None: that of input and parameters. Parameters are float32,
            logits float32 at least.
          rngs: random state, for `params`.

        Raises:
          ValueError: if `num_classes` or `in_channels` is no positive integer.
        """
        super().__init__(
            num_classes,
            widths=(16, 32, 64),
            blocks=3,
            in_channels=in_channels,
            stem_init=torch_uniform,
            stem_strides=1,
            linear=torch_linear,
            conv=conv,
            activation=activation,
            dtype=dtype,
            rngs=rngs,
        )


class SmallResNet(_CifarResNet):
    """A small relative of ResNet20, one block per stage.

    Attributes:
      remat_stages: how many of the first stages, whose maps are the largest, are computed again in
        the backward pass instead of kept: less memory, more time. 0 at first; set it at any time.

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
        conv: ConvFactory = BinaryConv,
        activation: Activation = hardtanh,
        dtype: jax.typing.DTypeLike | None = None,
        rngs: nnx.Rngs,
    ):
        """Makes the network. It is initialised as by Flax, except for a Kaiming-normal stem.

        Args:
          num_classes: number of logits.
          in_channels: channels of the images.
          widths: channels of each stage, none with fewer than the one before; every stage but the
            first halves the resolution.
          stem_strides: of the first convolution; 4 makes 8x8 maps of 32x32 images.
          conv: makes every convolution but the first.
          activation: after the stem and after every skip.
          dtype: of the arithmetic; None: that of input and parameters. Parameters are float32,
            logits float32 at least.
          rngs: random state, for `params`.

        Raises:
          ValueError: if a number is no positive integer, or `widths` is empty or decreases.
        """
        super().__init__(
            num_classes,
            widths=widths,
            blocks=1,
            in_channels=in_channels,
            stem_init=kaiming_normal,
            stem_strides=stem_strides,
            linear=nnx.Linear,
            conv=conv,
            activation=activation,
            dtype=dtype,
            rngs=rngs,
        )
