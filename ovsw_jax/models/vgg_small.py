"""VGG-small for CIFAR: a plain network, without any skip."""

import math
from collections.abc import Callable
from typing import Any

import jax
from flax import nnx

from ovsw_jax.models.common import (
    Activation,
    check_images,
    kaiming_normal_fan_out,
    name_of,
    settings,
    stem,
    takes,
    widen,
)
from ovsw_jax.nn._checks import check_counts
from ovsw_jax.nn.activations import PReLU
from ovsw_jax.nn.batch_norm import BatchNorm
from ovsw_jax.nn.hardtanh import hardtanh
from ovsw_jax.nn.layers import BinaryConv

_WIDTHS = (128, 256, 256, 512, 512)  # of the binary convolutions
_POOLED = (1, 3, 5)  # a max-pool follows these
_SIZE = 32  # height and width of the images, which the linear layer depends on


class VGGSmall(nnx.Module):
    """VGG-small for 32x32 images: five binary convolutions of 128-256-256-512-512 channels.

    A real-valued convolution comes first and a linear layer last. Each convolution is followed by
    a 2x2 max-pool (the first, third and fifth binary one), batch norm and an activation; the last
    activation is a PReLU with one slope per channel.

    Example:
      >>> import jax.numpy as jnp, ovsw_jax as ovsw
      >>> from flax import nnx
      >>> model = nnx.eval_shape(lambda: ovsw.models.VGGSmall(10, rngs=nnx.Rngs(0)))
      >>> nnx.eval_shape(lambda m, x: m(x), model, jnp.ones((2, 32, 32, 3))).shape
      (2, 10)

    Source: the network of the OvSW authors' code (facts only).
    """

    def __init__(
        self,
        num_classes: int = 10,
        *,
        in_channels: int = 3,
        conv: Callable[..., Any] = BinaryConv,
        activation: Activation = hardtanh,
        kernel_init: nnx.Initializer = kaiming_normal_fan_out,
        dtype: jax.typing.DTypeLike | None = None,
        rngs: nnx.Rngs,
    ):
        """Makes the network.

        Args:
          num_classes: number of logits.
          in_channels: channels of the images.
          conv: makes every convolution but the first. It must take `kernel_init=`, as
            `BinaryConv` and `nnx.Conv` do; a `partial` that sets one keeps its own.
          activation: after every batch norm but the last.
          kernel_init: initializer of all convolutions; Kaiming normal by fan-out.
          dtype: of the arithmetic; None: that of input and parameters. Parameters are float32,
            logits float32 at least.
          rngs: random state, for `params`.

        Raises:
          ValueError: if `num_classes` or `in_channels` is no positive integer, or `conv` takes no
            `kernel_init`.
        """
        check_counts(num_classes=num_classes, in_channels=in_channels)
        if not takes(conv, "kernel_init"):
            raise ValueError(
                f"conv={name_of(conv)} takes no kernel_init=, with which a VGGSmall initialises "
                "its convolutions. Let it take one, and pass it on to its layer."
            )
        start = settings(conv).get("kernel_init", kernel_init)
        features = _WIDTHS[0]
        self.conv0 = stem(in_channels, features, kernel_init=kernel_init, dtype=dtype, rngs=rngs)
        self.bn0 = BatchNorm(features, dtype=dtype, rngs=rngs)
        for number, width in enumerate(_WIDTHS, start=1):
            layer = conv(
                features,
                width,
                (3, 3),
                strides=1,
                padding=1,
                kernel_init=start,
                dtype=dtype,
                rngs=rngs,
            )
            setattr(self, f"conv{number}", layer)
            setattr(self, f"bn{number}", BatchNorm(width, dtype=dtype, rngs=rngs))
            features = width
        self.prelu = PReLU(features, rngs=rngs)
        pixels = (_SIZE // 2 ** len(_POOLED)) ** 2
        self.fc = nnx.Linear(
            pixels * features, num_classes, kernel_init=nnx.initializers.normal(0.01), rngs=rngs
        )
        self.in_channels, self.activation = in_channels, activation

    def __call__(self, x: jax.Array) -> jax.Array:
        """Images (batch, 32, 32, in_channels) to logits (batch, num_classes).

        Raises:
          ValueError: if the images have another shape.
        """
        check_images(x, self.in_channels, size=_SIZE)
        x = self.activation(self.bn0(self.conv0(x)))
        for number in range(1, len(_WIDTHS) + 1):
            x = getattr(self, f"conv{number}")(x)
            if number in _POOLED:
                x = nnx.max_pool(x, (2, 2), strides=(2, 2))
            activation = self.prelu if number == len(_WIDTHS) else self.activation
            x = activation(getattr(self, f"bn{number}")(x))
        return self.fc(widen(x).reshape(x.shape[0], math.prod(x.shape[1:])))
