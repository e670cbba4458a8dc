"""Batch norm whose backward pass needs its input alone."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from ovsw_jax.hyperparams import known_number
from ovsw_jax.nn._checks import check_counts, check_floating_dtype, real_array
from ovsw_jax.nn._kernels.features import along_features, sharded_as_features
from ovsw_jax.nn._kernels.shard_map_types import varying_alike
from ovsw_jax.precision import accurate_dtype

AxisName = str | tuple[str, ...] | None


class BatchNorm(nnx.BatchNorm):
    r"""`nnx.BatchNorm` whose backward pass needs its input alone.

    .. math::
      y = \gamma \frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}} + \beta

    with mean :math:`\mu` and biased variance :math:`\sigma^2` of each channel: of the batch in
    training, the running ones in evaluation. Parameters, statistics and results are those of
    `nnx.BatchNorm`, of which it is a subclass: `train()`, `eval()` and `use_running_average` do
    what they do there. What differs:

    - Between the passes it keeps `x` and two numbers per channel, where Flax keeps what it
      computed on the way too. Its gradient is a closed form of two sums, where Flax's takes four.
    - It computes in float32 at least and rounds the result alone to `dtype`; Flax would round the
      running statistics too.
    - Momentum and epsilon default to PyTorch's (0.1 in PyTorch's way of counting is 0.9 here).
      PyTorch's running variance is unbiased; Flax's and this one are biased.

    Under `jit` the batch is the global one, however it is sharded. Under `pmap` and `shard_map`
    each device sees its own part: `axis_name` tells over which axis the batch is spread. In a
    network, `model.set_attributes(nnx.BatchNorm, axis_name="data")` sets it everywhere.

    Attributes:
      scale: `nnx.Param`, (features,), the :math:`\gamma`; 1 at first.
      bias: `nnx.Param`, (features,), the :math:`\beta`; 0 at first.
      mean: `nnx.BatchStat`, (features,), the running mean; 0 at first.
      var: `nnx.BatchStat`, (features,), the running variance; 1 at first.

    Example:
      >>> import jax.numpy as jnp, ovsw_jax as ovsw
      >>> from flax import nnx
      >>> norm = ovsw.nn.BatchNorm(1, epsilon=0.0, rngs=nnx.Rngs(0))
      >>> norm(jnp.array([[1.0], [3.0]])).tolist()
      [[-1.0], [1.0]]
      >>> round(float(norm.mean[0]), 3)  # a tenth of the way from 0 to 2
      0.2

    Source: Ioffe and Szegedy 2015.
    """

    def __init__(
        self,
        features: int,
        *,
        momentum: float = 0.9,
        epsilon: float = 1e-5,
        axis_name: str | None = None,
        dtype: jax.typing.DTypeLike | None = None,
        rngs: nnx.Rngs,
    ):
        """Makes the layer.

        Args:
          features: channels, the last axis of the input.
          momentum: share of the old running statistic that each batch leaves, in [0, 1].
          epsilon: added to the variance, at least 0.
          axis_name: axis of `pmap` or `shard_map` over which the batch is spread.
          dtype: of the result; None: that of input and parameters. Parameters are float32.
          rngs: random state, for `params`.

        Raises:
          ValueError: if `features` is no positive integer, or momentum or epsilon out of range.
          TypeError: if momentum or epsilon is no number, or `dtype` not real floating-point.
        """
        check_counts(features=features)
        check_floating_dtype(dtype=dtype)
        _check_share("momentum", momentum)
        _check_epsilon(epsilon)
        super().__init__(
            features,
            momentum=momentum,
            epsilon=epsilon,
            axis_name=axis_name,
            use_fast_variance=False,
            dtype=dtype,
            promote_dtype=_widen,
            rngs=rngs,
        )

    def __call__(
        self, x: Any, use_running_average: bool | None = None, *, mask: jax.Array | None = None
    ) -> jax.Array:
        """Normalises over all axes but the last.

        Args:
          x: (batch, ..., features), real.
          use_running_average: evaluation; None: as the layer is set.
          mask: where to look for mean and variance, as in `nnx.BatchNorm`, which then computes.

        Returns:
          Array of the shape of `x`.

        Raises:
          ValueError: if the last axis of `x` has another size.
          TypeError: if `x` is no real array.
        """
        x = real_array("input", x)
        if x.shape[-1:] != (self.num_features,):
            raise ValueError(
                f"input of shape {x.shape} does not fit a BatchNorm of {self.num_features} "
                f"channels: its last axis must have size {self.num_features} (channels last)."
            )
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


def _check_share(name: str, value: float) -> None:
    if not 0 <= known_number(name, value) <= 1:
        raise ValueError(
            f"{name}={value!r} is out of range: it is the share of the old running statistic that "
            "a batch leaves, between 0 and 1. PyTorch's momentum m is 1 - m here; start from 0.9."
        )


def _check_epsilon(epsilon: float) -> None:
    value = known_number("epsilon", epsilon)
    if not 0 <= value < float("inf"):
        raise ValueError(
            f"epsilon={epsilon!r} is out of range: it is added to the variance, so it must be "
            "finite and at least 0. Start from 1e-5."
        )
