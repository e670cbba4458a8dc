"""ResNet20, and ResNet18 for CIFAR and ImageNet, as one writes them from what JAX and Flax have.

What the library's own layers are compared with, without ovsw_jax: the same arithmetic, every
operation by itself.
Modules and parameters are named as in `ovsw_jax.models`, so parameters fit both.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

EPSILON = 1e-5

Dtype = jax.typing.DTypeLike | None
# One skip around a block, its 1x1 convolution binary; or one around each convolution, by an average
# pool and channels of zeros, or by a real-valued 1x1 convolution, where the shape changes.
Skip = Literal["block", "pad", "conv"]

_torch_uniform = nnx.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


@jax.custom_jvp
def _input_sign(x: jax.Array) -> jax.Array:
    return jnp.where(x >= 0, 1, -1).astype(x.dtype)


@_input_sign.defjvp
def _(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    (x,), (tangent,) = primals, tangents
    return _input_sign(x), tangent * jnp.maximum(2 - 2 * jnp.abs(x), 0)


@jax.custom_jvp
def _kernel_sign(latent: jax.Array) -> jax.Array:
    return jnp.where(latent >= 0, 1, -1).astype(latent.dtype)


_kernel_sign.defjvp(lambda primals, tangents: (_kernel_sign(*primals), *tangents))


class _BinaryConv(nnx.Module):
    def __init__(self, in_features: int, features: int, size: int, strides: int, rngs: nnx.Rngs):
        init = nnx.initializers.variance_scaling(2.0, "fan_in", "normal")
        self.latent_kernel = nnx.Param(init(rngs.params(), (size, size, in_features, features)))
        self.strides, self.padding = strides, (size - 1) // 2

    def __call__(self, x: jax.Array) -> jax.Array:
        latent = self.latent_kernel[...]
        variance = jnp.var(x.astype(latent.dtype), axis=(1, 2, 3), keepdims=True, ddof=1)
        deviation = lax.stop_gradient(jnp.sqrt(variance + EPSILON))
        y = lax.conv_general_dilated(
            _input_sign(x / deviation.astype(x.dtype)),
            _kernel_sign(latent).astype(x.dtype),
            (self.strides, self.strides),
            [(self.padding, self.padding)] * 2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        return y * lax.stop_gradient(_factor(latent)).astype(x.dtype)


def _factor(latent: jax.Array) -> jax.Array:
    """Mean magnitude of the standardised weights of each filter."""
    axes = (0, 1, 2)
    centered = latent - jnp.mean(latent, axis=axes)
    deviation = jnp.sqrt(jnp.var(latent, axis=axes, ddof=1) + EPSILON)
    return jnp.mean(jnp.abs(centered), axis=axes) / deviation


def _batch_norm(features: int, dtype: Dtype, rngs: nnx.Rngs) -> nnx.BatchNorm:
    return nnx.BatchNorm(features, momentum=0.9, epsilon=EPSILON, dtype=dtype, rngs=rngs)


def _hardtanh(x: jax.Array) -> jax.Array:
    """As in PyTorch without a gradient at the ends, which `jax.nn.hard_tanh` has."""
    return jnp.where(jnp.abs(x) < 1, x, jnp.sign(x))


class _ConvShortcut(nnx.Module):
    def __init__(self, in_features: int, features: int, strides: int, dtype: Dtype, rngs: nnx.Rngs):
        self.conv = nnx.Conv(
            in_features,
            features,
            (1, 1),
            strides=strides,
            use_bias=False,
            kernel_init=_torch_uniform,
            dtype=dtype,
            rngs=rngs,
        )
        self.bn = _batch_norm(features, dtype, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.bn(self.conv(x))


def _pad_shortcut(x: jax.Array, strides: int, new_features: int) -> jax.Array:
    window, before = (strides, strides), new_features // 2
    pads = ((0, 0), (0, 0), (0, 0), (before, new_features - before))
    return jnp.pad(nnx.avg_pool(x, window, strides=window), pads)


class _Block(nnx.Module):
    """Two binary convolutions."""

    def __init__(
        self,
        in_features: int,
        features: int,
        strides: int,
        skip: Skip,
        dtype: Dtype,
        rngs: nnx.Rngs,
    ):
        self.conv1 = _BinaryConv(in_features, features, 3, strides, rngs)
        self.bn1 = _batch_norm(features, dtype, rngs)
        self.conv2 = _BinaryConv(features, features, 3, 1, rngs)
        self.bn2 = _batch_norm(features, dtype, rngs)
        self.skip, self.strides, self.new_features = skip, strides, features - in_features
        self.shortcut: Any = nnx.List([]) if skip == "block" else nnx.data(None)
        if self.new_features and skip == "block":
            reshape = _BinaryConv(in_features, features, 1, strides, rngs)
            self.shortcut = nnx.List([reshape, _batch_norm(features, dtype, rngs)])
        elif self.new_features and skip == "conv":
            self.shortcut = _ConvShortcut(in_features, features, strides, dtype, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        if self.skip == "block":
            skip = x
            for layer in self.shortcut:
                skip = layer(skip)
            x = _hardtanh(self.bn1(self.conv1(x)))
            return _hardtanh(self.bn2(self.conv2(x)) + skip)
        skip = x
        if self.new_features and self.skip == "pad":
            skip = _pad_shortcut(x, self.strides, self.new_features)
        elif self.new_features:
            skip = self.shortcut(x)
        x = _hardtanh(self.bn1(self.conv1(x)) + skip)
        return _hardtanh(self.bn2(self.conv2(x)) + x)


class _ResNet(nnx.Module):
    def __init__(
        self,
        num_classes: int,
        *,
        widths: tuple[int, ...],
        blocks: int,
        skip: Skip,
        imagenet: bool = False,
        dtype: Dtype = None,
        rngs: nnx.Rngs,
    ):
        self.conv1 = nnx.Conv(
            3,
            widths[0],
            (7, 7) if imagenet else (3, 3),
            strides=2 if imagenet else 1,
            padding=3 if imagenet else 1,
            use_bias=False,
            kernel_init=_torch_uniform,
            dtype=dtype,
            rngs=rngs,
        )
        self.bn1 = _batch_norm(widths[0], dtype, rngs)
        features = widths[0]
        self.stages, self.skip, self.imagenet = len(widths), skip, imagenet
        for number, width in enumerate(widths, start=1):
            layers = []
            for i in range(blocks):
                strides = 2 if number > 1 and i == 0 else 1
                layers.append(_Block(features, width, strides, skip, dtype, rngs))
                features = width
            setattr(self, f"layer{number}", nnx.List(layers))
        if imagenet:
            for _, module in nnx.iter_modules(self):
                if isinstance(module, nnx.BatchNorm) and module.scale is not None:
                    module.scale[...] = module.scale[...] * 1e-8
        self.bn2 = _batch_norm(features, None, rngs)
        if skip == "block":
            self.fc = nnx.Conv(features, num_classes, (1, 1), kernel_init=_torch_uniform, rngs=rngs)
        else:
            self.head = "fc" if imagenet else "linear"
            linear = nnx.Linear(features, num_classes, kernel_init=_torch_uniform, rngs=rngs)
            setattr(self, self.head, linear)

    def __call__(self, images: jax.Array) -> jax.Array:
        """Images (batch, height, width, 3) to logits (batch, num_classes)."""
        x = self.bn1(self.conv1(images))
        x = x if self.skip == "block" else _hardtanh(x)
        if self.imagenet:
            x = nnx.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))
        for number in range(1, self.stages + 1):
            for block in getattr(self, f"layer{number}"):
                x = block(x)
        x = self.bn2(jnp.mean(x.astype(images.dtype), axis=(1, 2)))
        if self.skip == "block":
            return self.fc(x[:, None, None])[:, 0, 0]
        return getattr(self, self.head)(x)


NETWORKS: dict[str, Callable[..., nnx.Module]] = {
    "resnet18": partial(_ResNet, widths=(64, 128, 256, 512), blocks=2, skip="block"),
    "imagenet_resnet18": partial(
        _ResNet, widths=(64, 128, 256, 512), blocks=2, skip="conv", imagenet=True
    ),
    "resnet20": partial(_ResNet, widths=(16, 32, 64), blocks=3, skip="pad"),
    "small": partial(_ResNet, widths=(16, 32), blocks=1, skip="pad"),
}
