"""The blocks that the networks are made of: two binary convolutions and their skips."""

from collections.abc import Callable
from typing import Any

import jax
from flax import nnx

from ovsw_jax.models.common import (
    Activation,
    ConvFactory,
    check_maps,
    name_of,
    settings,
    takes,
)
from ovsw_jax.models.shortcuts import ConvShortcut, Shortcut
from ovsw_jax.nn._checks import check_counts
from ovsw_jax.nn.activations import RPReLU
from ovsw_jax.nn.batch_norm import BatchNorm
from ovsw_jax.nn.hardtanh import hardtanh
from ovsw_jax.nn.layers import BinaryConv
from ovsw_jax.nn.threshold import LearnedThresholdSign


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
        self.bn1 = BatchNorm(features, dtype=dtype, rngs=rngs)
        self.conv2 = conv(features, features, (3, 3), strides=1, padding=1, dtype=dtype, rngs=rngs)
        self.bn2 = BatchNorm(features, dtype=dtype, rngs=rngs)
        self.shortcut: nnx.List[Any] = nnx.List([])
        if strides > 1 or in_features != features:
            reshape = conv(
                in_features, features, (1, 1), strides=strides, padding=0, dtype=dtype, rngs=rngs
            )
            self.shortcut = nnx.List([reshape, BatchNorm(features, dtype=dtype, rngs=rngs)])
        self.activation = activation

    def __call__(self, x: jax.Array) -> jax.Array:
        """(batch, height, width, in_features) to (batch, height', width', features)."""
        x = check_maps(x, self.in_features)
        skip = x
        for layer in self.shortcut:
            skip = layer(skip)
        x = self.activation(self.bn1(self.conv1(x)))
        return self.activation(self.bn2(self.conv2(x)) + skip)


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
        self.bn1 = BatchNorm(features, dtype=dtype, rngs=rngs)
        self.conv2 = conv(features, features, (3, 3), strides=1, padding=1, dtype=dtype, rngs=rngs)
        self.bn2 = BatchNorm(features, dtype=dtype, rngs=rngs)
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


def pooled_shortcut(
    in_features: int,
    features: int,
    strides: int,
    *,
    dtype: jax.typing.DTypeLike | None = None,
    rngs: nnx.Rngs,
) -> ConvShortcut:
    """A `ConvShortcut` behind an average pool."""
    return ConvShortcut(in_features, features, strides, average_pool=True, dtype=dtype, rngs=rngs)


class ReActBlock(nnx.Module):
    """Two 3x3 convolutions of signs with learned thresholds, a skip around each, and an RPReLU.

    x <- RPReLU(BN(conv(sign(x - threshold))) + x), twice, with one threshold, slope and shift
    per channel. Where the shape changes, the first skip is an average pool, a real-valued 1x1
    convolution and batch norm.

    Example:
      >>> import functools
      >>> import jax.numpy as jnp, ovsw_jax as ovsw
      >>> from flax import nnx
      >>> conv = functools.partial(ovsw.nn.BinaryConv, scale=ovsw.nn.mean_magnitude)
      >>> block = ovsw.models.ReActBlock(8, 16, 2, conv=conv, rngs=nnx.Rngs(0))
      >>> block(jnp.ones((1, 6, 6, 8))).shape
      (1, 3, 3, 16)

    As a whole network, with batch norms that start at 1 as in ReActNet:
      >>> make = functools.partial(
      ...     ovsw.models.ResNet18, block=ovsw.models.ReActBlock, norm_scale=1.0, conv=conv
      ... )

    Source: Liu et al. 2020, ReActNet, in its form for ResNet18. Its factor is that of the example;
      the default is the one of `BinaryConv`.
    """

    def __init__(
        self,
        in_features: int,
        features: int,
        strides: int = 1,
        *,
        shortcut: Shortcut = pooled_shortcut,
        conv: Callable[..., Any] = BinaryConv,
        dtype: jax.typing.DTypeLike | None = None,
        rngs: nnx.Rngs,
    ):
        """Makes the block.

        Args:
          in_features: channels of the input.
          features: channels of the output.
          strides: 2 halves the resolution.
          shortcut: makes the skip where the shape changes.
          conv: makes the convolutions; it gets `input_sign` and `normalize_input`, as
            `BinaryConv` takes them, so it must not set them itself.
          dtype: of the arithmetic; None: that of input and parameters.
          rngs: random state, for `params`.

        Raises:
          ValueError: if `conv` does not take these two, or sets them.
        """
        check_counts(in_features=in_features, features=features, strides=strides)
        self.in_features = in_features
        _check_conv(conv)
        layer = {"kernel_size": (3, 3), "padding": 1, "dtype": dtype, "rngs": rngs}
        self.conv1 = conv(
            in_features,
            features,
            strides=strides,
            input_sign=LearnedThresholdSign(in_features, rngs=rngs),
            normalize_input=False,
            **layer,
        )
        self.bn1 = BatchNorm(features, dtype=dtype, rngs=rngs)
        self.activation1 = RPReLU(features, rngs=rngs)
        self.conv2 = conv(
            features,
            features,
            strides=1,
            input_sign=LearnedThresholdSign(features, rngs=rngs),
            normalize_input=False,
            **layer,
        )
        self.bn2 = BatchNorm(features, dtype=dtype, rngs=rngs)
        self.activation2 = RPReLU(features, rngs=rngs)
        same = strides == 1 and in_features == features
        self.shortcut = nnx.data(
            None if same else shortcut(in_features, features, strides, dtype=dtype, rngs=rngs)
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        """(batch, height, width, in_features) to (batch, height', width', features)."""
        x = check_maps(x, self.in_features)
        skip = x if self.shortcut is None else self.shortcut(x)
        x = self.activation1(self.bn1(self.conv1(x)) + skip)
        return self.activation2(self.bn2(self.conv2(x)) + x)


def _check_conv(conv: Callable[..., Any]) -> None:
    for name in ("input_sign", "normalize_input"):
        if not takes(conv, name):
            raise ValueError(
                f"conv={name_of(conv)} takes no {name}=, by which a ReActBlock puts a learned "
                "threshold in front of its convolutions: use ovsw.nn.BinaryConv or a partial of "
                "it. A BiRealBlock takes any convolution."
            )
        own = settings(conv).get(name, False)
        if own is not False:
            raise ValueError(
                f"conv= sets {name}={own!r}, which a ReActBlock sets itself: a learned "
                "threshold, without normalisation. Leave it out; a BiRealBlock takes any."
            )
