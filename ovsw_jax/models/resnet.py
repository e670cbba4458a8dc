"""ResNet18 and ResNet34 for ImageNet, with a skip around every binary convolution."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from ovsw_jax.models.blocks import BiRealBlock
from ovsw_jax.models.common import (
    Activation,
    ConvFactory,
    apply_stages,
    check_images,
    global_average_pool,
    name_of,
    stem,
    takes,
    torch_linear,
    torch_uniform,
)
from ovsw_jax.nn._checks import check_counts, check_floating_dtype
from ovsw_jax.nn.batch_norm import BatchNorm
from ovsw_jax.nn.hardtanh import hardtanh
from ovsw_jax.nn.layers import BinaryConv

# Called as block(in_features, features, strides, conv=..., dtype=..., rngs=...), and with
# activation=... where the network was given one.
BlockFactory = Callable[..., nnx.Module]


class ResNet(nnx.Module):
    """Stages of blocks behind a 7x7 convolution and a max-pool that each halve the resolution.

    `ResNet18` and `ResNet34` name its depths.

    Attributes:
      remat_stages: how many of the first stages, whose maps are the largest, are computed again in
        the backward pass instead of kept: less memory, more time. 0 at first; set it at any time.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        depths: Sequence[int],
        widths: Sequence[int] = (64, 128, 256, 512),
        in_channels: int = 3,
        block: BlockFactory = BiRealBlock,
        norm_scale: float = 1e-8,
        conv: ConvFactory = BinaryConv,
        activation: Activation | None = None,
        dtype: jax.typing.DTypeLike | None = None,
        rngs: nnx.Rngs,
    ):
        """Makes the network.

        Args:
          num_classes: number of logits.
          depths: blocks of each stage.
          widths: channels of each stage; every stage but the first halves the resolution.
          in_channels: channels of the images.
          block: makes the blocks.
          norm_scale: initial scale of all batch norms but the last.
          conv: makes the convolutions of the blocks.
          activation: after the stem and in the blocks; None: hardtanh after the stem, and the
            block's own in the blocks. `ReActBlock` takes no other.
          dtype: of the arithmetic; None: that of input and parameters. Parameters are float32,
            logits float32 at least.
          rngs: random state, for `params`.

        Raises:
          ValueError: if `num_classes` or `in_channels` is no positive integer, `norm_scale` is
            too small for `dtype`, or `block` takes no `activation` and one is given.
        """
        check_counts(num_classes=num_classes, in_channels=in_channels)
        _check_norm_scale(norm_scale, dtype)
        arguments: dict[str, Any] = {"conv": conv, "dtype": dtype, "rngs": rngs}
        if activation is not None:
            if not takes(block, "activation"):
                raise ValueError(
                    f"block={name_of(block)} takes no activation=: it has one of its own. Leave "
                    "activation=None, or use a block that takes one, such as BiRealBlock."
                )
            arguments["activation"] = activation
        self.conv1 = stem(
            in_channels,
            widths[0],
            kernel_init=torch_uniform,
            kernel_size=7,
            strides=2,
            dtype=dtype,
            rngs=rngs,
        )
        self.bn1 = BatchNorm(widths[0], dtype=dtype, rngs=rngs)
        self.stages, self.remat_stages, self.in_channels = len(widths), 0, in_channels
        self.multiple = 4 * 2 ** (self.stages - 1)
        self.activation = hardtanh if activation is None else activation
        features = widths[0]
        for number, (width, depth) in enumerate(zip(widths, depths, strict=True), start=1):
            layers = []
            for position in range(depth):
                strides = 2 if number > 1 and position == 0 else 1
                layers.append(block(features, width, strides, **arguments))
                features = width
            setattr(self, f"layer{number}", nnx.List(layers))
        for _, module in nnx.iter_modules(self):
            if isinstance(module, nnx.BatchNorm) and module.scale is not None:
                module.scale[...] = module.scale[...] * norm_scale
        self.bn2 = BatchNorm(features, rngs=rngs)
        self.fc = torch_linear(features, num_classes, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Images (batch, height, width, in_channels) to logits (batch, num_classes).

        Raises:
          ValueError: if the images have another shape, or can't be halved from stage to stage.
        """
        check_images(x, self.in_channels, multiple=self.multiple)
        x = self.activation(self.bn1(self.conv1(x)))
        x = nnx.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))
        x = apply_stages(self, x)
        return self.fc(self.bn2(global_average_pool(x)))


def _check_norm_scale(norm_scale: float, dtype: jax.typing.DTypeLike | None) -> None:
    """Batch norms round their results to `dtype`: all 0 in float16, and so are all gradients."""
    check_floating_dtype(dtype=dtype)
    if dtype is None:
        return
    least = float(jnp.finfo(dtype).tiny)
    if 0 < norm_scale < least:
        raise ValueError(
            f"norm_scale={norm_scale} is too small for dtype={jnp.dtype(dtype)}, whose least "
            f"normal number is {least:.2g}: batch norms would give 0, and latent weights would get "
            "no gradient. Use norm_scale=1.0, or dtype=jnp.bfloat16, which has float32's range."
        )


class ResNet18(ResNet):
    """ResNet18 for 224x224 images: 64-128-256-512 channels, two blocks per stage.

    16 binary convolutions with 10.99 million latent weights.

    Attributes:
      remat_stages: how many of the first stages, whose maps are the largest, are computed again in
        the backward pass instead of kept: less memory, more time. 0 at first; set it at any time.

    Example:
      >>> import jax.numpy as jnp, ovsw_jax as ovsw
      >>> from flax import nnx
      >>> model = nnx.eval_shape(lambda: ovsw.models.ResNet18(rngs=nnx.Rngs(0)))
      >>> nnx.eval_shape(lambda m, x: m(x), model, jnp.ones((2, 224, 224, 3))).shape
      (2, 1000)

    Source: the network of the OvSW authors' code (facts only); Liu et al. 2018, Bi-Real Net.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        *,
        in_channels: int = 3,
        block: BlockFactory = BiRealBlock,
        norm_scale: float = 1e-8,
        conv: ConvFactory = BinaryConv,
        activation: Activation | None = None,
        dtype: jax.typing.DTypeLike | None = None,
        rngs: nnx.Rngs,
    ):
        """Makes the network; arguments as for `ResNet`."""
        super().__init__(
            num_classes,
            depths=(2, 2, 2, 2),
            in_channels=in_channels,
            block=block,
            norm_scale=norm_scale,
            conv=conv,
            activation=activation,
            dtype=dtype,
            rngs=rngs,
        )


class ResNet34(ResNet):
    """ResNet34 for 224x224 images: 64-128-256-512 channels, 3-4-6-3 blocks.

    32 binary convolutions with 21.09 million latent weights.

    Attributes:
      remat_stages: how many of the first stages, whose maps are the largest, are computed again in
        the backward pass instead of kept: less memory, more time. 0 at first; set it at any time.

    Example:
      >>> import jax.numpy as jnp, ovsw_jax as ovsw
      >>> from flax import nnx
      >>> model = nnx.eval_shape(lambda: ovsw.models.ResNet34(rngs=nnx.Rngs(0)))
      >>> nnx.eval_shape(lambda m, x: m(x), model, jnp.ones((2, 224, 224, 3))).shape
      (2, 1000)

    Source: as `ResNet18`.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        *,
        in_channels: int = 3,
        block: BlockFactory = BiRealBlock,
        norm_scale: float = 1e-8,
        conv: ConvFactory = BinaryConv,
        activation: Activation | None = None,
        dtype: jax.typing.DTypeLike | None = None,
        rngs: nnx.Rngs,
    ):
        """Makes the network; arguments as for `ResNet`."""
        super().__init__(
            num_classes,
            depths=(3, 4, 6, 3),
            in_channels=in_channels,
            block=block,
            norm_scale=norm_scale,
            conv=conv,
            activation=activation,
            dtype=dtype,
            rngs=rngs,
        )
