"""The block of ReActNet: learned thresholds in front, learned kinks behind."""

from collections.abc import Callable
from typing import Any

import jax
from flax import nnx

from ovsw_jax.models.factories import name_of, settings, takes
from ovsw_jax.models.parts import batch_norm, check_maps
from ovsw_jax.models.shortcuts import ConvShortcut, Shortcut
from ovsw_jax.nn._checks import check_counts
from ovsw_jax.nn.activations import RPReLU
from ovsw_jax.nn.layers import BinaryConv
from ovsw_jax.nn.threshold import LearnedThresholdSign


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

    x <- RPReLU(BN(conv(sign(x - threshold))) + x), twice, every threshold, slope and shift being
    one a channel. Where the shape changes, the first skip is an average pool, a real-valued 1x1
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
          conv: makes the convolutions; it is given `input_sign` and `normalize_input`, as
            `BinaryConv` takes them, and so may not set them itself.
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
        self.bn1 = batch_norm(features, rngs, dtype=dtype)
        self.activation1 = RPReLU(features, rngs=rngs)
        self.conv2 = conv(
            features,
            features,
            strides=1,
            input_sign=LearnedThresholdSign(features, rngs=rngs),
            normalize_input=False,
            **layer,
        )
        self.bn2 = batch_norm(features, rngs, dtype=dtype)
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
