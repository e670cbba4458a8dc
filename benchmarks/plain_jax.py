"""ResNet20 and ResNet18 as one writes them from what JAX and Flax have, without ovsw_jax.

What the library's own layers are compared with: the same arithmetic, every operation by itself.
Modules and parameters are named as in `ovsw_jax.models`, so parameters fit both.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

EPSILON = 1e-5

Dtype = jax.typing.DTypeLike | None

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


class _Block(nnx.Module):
    """Two binary convolutions; `skip_each` has a skip around each, else one is around both."""

    def __init__(
        self,
        in_features: int,
        features: int,
        strides: int,
        skip_each: bool,
        dtype: Dtype,
        rngs: nnx.Rngs,
    ):
        self.conv1 = _BinaryConv(in_features, features, 3, strides, rngs)
        self.bn1 = _batch_norm(features, dtype, rngs)
        self.conv2 = _BinaryConv(features, features, 3, 1, rngs)
        self.bn2 = _batch_norm(features, dtype, rngs)
        self.skip_each, self.strides, self.new_features = skip_each, strides, features - in_features
        self.shortcut: nnx.List[Any] = nnx.List([])
        if self.new_features and not skip_each:
            reshape = _BinaryConv(in_features, features, 1, strides, rngs)
            self.shortcut = nnx.List([reshape, _batch_norm(features, dtype, rngs)])

    def __call__(self, x: jax.Array) -> jax.Array:
        skip = x
        for layer in self.shortcut:
            skip = layer(skip)
        if self.skip_each and self.new_features:
            window, before = (self.strides, self.strides), self.new_features // 2
            pads = ((0, 0), (0, 0), (0, 0), (before, self.new_features - before))
            skip = jnp.pad(nnx.avg_pool(x, window, strides=window), pads)
        x = self.bn1(self.conv1(x))
        if self.skip_each:
            x = skip = _hardtanh(x + skip)
        else:
            x = _hardtanh(x)
        return _hardtanh(self.bn2(self.conv2(x)) + skip)


class _ResNet(nnx.Module):
    def __init__(
        self,
        num_classes: int,
        *,
        widths: tuple[int, ...],
        blocks: int,
        skip_each: bool,
        dtype: Dtype = None,
        rngs: nnx.Rngs,
    ):
        self.conv1 = nnx.Conv(
            3,
            widths[0],
            (3, 3),
            padding=1,
            use_bias=False,
            kernel_init=_torch_uniform,
            dtype=dtype,
            rngs=rngs,
        )
        self.bn1 = _batch_norm(widths[0], dtype, rngs)
        features = widths[0]
        self.stages, self.skip_each = len(widths), skip_each
        for number, width in enumerate(widths, start=1):
            layers = []
            for i in range(blocks):
                strides = 2 if number > 1 and i == 0 else 1
                layers.append(_Block(features, width, strides, skip_each, dtype, rngs))
                features = width
            setattr(self, f"layer{number}", nnx.List(layers))
        self.bn2 = _batch_norm(features, None, rngs)
        if skip_each:
            self.linear = nnx.Linear(features, num_classes, kernel_init=_torch_uniform, rngs=rngs)
        else:
            self.fc = nnx.Conv(features, num_classes, (1, 1), kernel_init=_torch_uniform, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        """Images (batch, height, width, 3) to logits (batch, num_classes)."""
        x = self.bn1(self.conv1(images))
        x = _hardtanh(x) if self.skip_each else x
        for number in range(1, self.stages + 1):
            for block in getattr(self, f"layer{number}"):
                x = block(x)
        x = self.bn2(jnp.mean(x.astype(images.dtype), axis=(1, 2)))
        return self.linear(x) if self.skip_each else self.fc(x[:, None, None])[:, 0, 0]


NETWORKS: dict[str, Callable[..., nnx.Module]] = {
    "resnet18": partial(_ResNet, widths=(64, 128, 256, 512), blocks=2, skip_each=False),
    "resnet20": partial(_ResNet, widths=(16, 32, 64), blocks=3, skip_each=True),
    "small": partial(_ResNet, widths=(16, 32), blocks=1, skip_each=True),
}
