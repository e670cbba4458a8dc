"""Batch norm that remembers nothing but its input."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from ovsw_jax.nn._kernels.features import along_features, sharded_as_features
from ovsw_jax.nn._kernels.shard_map_types import varying_alike
from ovsw_jax.precision import accurate_dtype

AxisName = str | tuple[str, ...] | None


class BatchNorm(nnx.BatchNorm):
    """`nnx.BatchNorm` with PyTorch's decay (0.1) and epsilon (1e-5), and a lean backward pass.

    The same parameters, statistics and results. Between the passes it keeps its input alone, where
    Flax's keeps what it computed on the way too, and its gradient is written in closed form: two
    sums instead of four. All is computed in float32 at least, and only the result rounded to
    `dtype`: Flax alone would round the running statistics too. Flax keeps the biased variance as
    its running statistic, PyTorch the unbiased one.

    Under `jit` the batch is the global one, however it is sharded. Under `pmap` and `shard_map`
    each device sees its own part: tell the layer over which axis the batch is spread, as any
    `nnx.BatchNorm`, by `model.set_attributes(nnx.BatchNorm, axis_name="data")`.

    Source: Ioffe and Szegedy 2015.
    """

    def __init__(self, features: int, *, dtype: jax.typing.DTypeLike | None = None, rngs: nnx.Rngs):
        """Makes the layer.

        Args:
          features: channels, the last axis of the input.
          dtype: of the result; None: that of input and parameters.
          rngs: random state, for `params`.
        """
        super().__init__(
            features,
            momentum=0.9,
            epsilon=1e-5,
            use_fast_variance=False,
            dtype=dtype,
            promote_dtype=_widen,
            rngs=rngs,
        )

    def __call__(
        self, x: Any, use_running_average: bool | None = None, *, mask: jax.Array | None = None
    ) -> jax.Array:
        """Normalises (batch, ..., features); with anything unusual as Flax does."""
        evaluates = self.use_running_average if use_running_average is None else use_running_average
        plain = None not in (self.scale, self.bias) and self.axis_index_groups is None
        if evaluates or mask is not None or not plain:
            return super().__call__(x, use_running_average, mask=mask)
        arrays = (x, *(jnp.asarray(v) for v in (self.mean, self.var, self.scale, self.bias)))
        dtype = jnp.result_type(x, *arrays[3:]) if self.dtype is None else self.dtype
        scale, bias = self.promote_dtype(arrays, dtype=self.dtype)[3:]
        y, mean, var = normalize_batch(x, scale, bias, self.epsilon, self.axis_name)
        self.mean[...] = self.momentum * self.mean[...] + (1 - self.momentum) * mean
        self.var[...] = self.momentum * self.var[...] + (1 - self.momentum) * var
        return y.astype(dtype)


class _Kept(NamedTuple):
    x: jax.Array
    mean: jax.Array
    inverse: jax.Array  # 1 / deviation
    scale: jax.Array
    epsilon: jax.Array


def normalize_batch(
    x: jax.Array,
    scale: jax.Array,
    bias: jax.Array,
    epsilon: jax.typing.ArrayLike,
    axis_name: AxisName = None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Batch norm in training.

    Args:
      x: (batch, ..., features).
      scale: (features,), in the dtype to compute in.
      bias: (features,), likewise.
      epsilon: added to the variance; has no gradient.
      axis_name: axis of `pmap` or `shard_map` over which the batch is spread; None: all of it is
        here.

    Returns:
      The result, and mean and biased variance over all but the last axis, all in the dtype of
      `scale`. Mean and variance have no gradient.
    """
    epsilon = jnp.asarray(epsilon, scale.dtype)
    scale, bias = sharded_as_features(x, scale, bias)
    return _normalize(*varying_alike(x, scale, bias, epsilon), axis_name)


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def _normalize(
    x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: jax.Array, axis_name: AxisName
) -> tuple[jax.Array, jax.Array, jax.Array]:
    return _forward(x, scale, bias, epsilon, axis_name)[0]


def _forward(
    x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: jax.Array, axis_name: AxisName
) -> tuple[tuple[jax.Array, jax.Array, jax.Array], _Kept]:
    wide, axes = x.astype(scale.dtype), tuple(range(x.ndim - 1))
    mean = _over_devices(jnp.mean(wide, axes), axis_name)
    centered = wide - along_features(mean, wide)
    var = _over_devices(jnp.mean(jnp.square(centered), axes), axis_name)
    inverse = lax.rsqrt(var + epsilon)
    y = centered * along_features(inverse * scale, wide) + along_features(bias, wide)
    return (y, mean, var), _Kept(x, mean, inverse, scale, epsilon)


def _backward(
    axis_name: AxisName, kept: _Kept, cotangents: tuple[jax.Array, jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    dy, x = cotangents[0], kept.x
    axes, count = tuple(range(x.ndim - 1)), x.size // x.shape[-1]
    centered = x.astype(dy.dtype) - along_features(kept.mean, dy)
    normalized = centered * along_features(kept.inverse, dy)
    to_bias = jnp.sum(dy, axes)
    to_scale = jnp.sum(dy * normalized, axes)
    # Parameters are each device's own, to be summed by whoever sums gradients; the mean is shared.
    along_one = _over_devices(to_bias / count, axis_name)
    along_x = _over_devices(to_scale / count, axis_name)
    along_one, along_x, slope = (
        along_features(a, dy) for a in (along_one, along_x, kept.inverse * kept.scale)
    )
    to_x = slope * (dy - along_one - normalized * along_x)
    return to_x.astype(x.dtype), to_scale, to_bias, jnp.zeros_like(kept.epsilon)


_normalize.defvjp(_forward, _backward)


def _over_devices(mean: jax.Array, axis_name: AxisName) -> jax.Array:
    """The mean over the devices of what is the mean on each."""
    return mean if axis_name is None else lax.pmean(mean, axis_name)


def _widen(arrays: Any, /, *, dtype: object = None, inexact: bool = True) -> Any:
    """Brings all arrays to float32, or to float64 if one is; `dtype` is left for the result."""
    del dtype, inexact
    wide = accurate_dtype(*(x for x in arrays if x is not None))
    return tuple(None if x is None else jnp.asarray(x, wide) for x in arrays)
