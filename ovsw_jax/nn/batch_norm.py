"""Batch norm that keeps nothing but its input for the backward pass."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from ovsw_jax.hyperparams import check_flag, known_number
from ovsw_jax.nn._checks import check_counts, check_floating_dtype, real_array
from ovsw_jax.nn._kernels.features import along_features, sharded_as_features
from ovsw_jax.nn._kernels.shard_map_types import varying_alike
from ovsw_jax.nn._kernels.sums import sum_pair
from ovsw_jax.nn.platforms import platform
from ovsw_jax.precision import accurate_dtype

AxisName = str | tuple[str, ...] | None


class BatchNorm(nnx.BatchNorm):
    r"""Batch norm with a backward pass in closed form, which needs the input alone.

    .. math::
      y = \gamma \frac{x - \mu}{\sqrt{v + \epsilon}} + \beta

    per feature. In training, :math:`\mu` and :math:`v` are the mean and the biased variance over
    all axes of the batch but the last, and the running statistics move towards them by
    :math:`1 - \text{momentum}`. In evaluation, they are the running statistics.

    It is an `nnx.BatchNorm` with the same parameters, statistics and results, so
    `model.train()`, `model.eval()`, `nnx.view(model, use_running_average=True)` and filters on
    `nnx.BatchStat` work. What differs:

    - Memory: for the backward pass it keeps its input in the input's dtype, and a few numbers per
      feature. Flax's also keeps the centred input, in float32 at least.
    - Time: its gradient takes two sums over the batch, where JAX's derivative of Flax's takes
      more; it computes the normalised input again, one subtraction and one product per element.
    - Defaults: a momentum of 0.9 instead of 0.99, and the exact variance instead of the faster
      :math:`E[x^2] - E[x]^2`.
    - Precision: everything is computed in float32 at least, and only the result is rounded to
      `dtype`. Flax's would round the running statistics to `dtype` before it uses them.
    - Derivatives: second ones are there, but no forward mode (`jax.jvp`) of the first.
    - Always a scale and a bias, and features on the last axis.

    A call with `mask=`, and a layer whose scale, bias, axis or `axis_index_groups` is changed
    after it is made, compute as Flax does, without the savings.

    Under `jit` the batch is the global one, however it is sharded. Under `pmap`, `shard_map` and
    `vmap` a layer sees its own part; `axis_name` says over which axis the batch is spread.
    `model.set_attributes(nnx.BatchNorm, axis_name="data")` tells a whole network. With an axis of
    `vmap`, take gradients inside the function that is mapped: outside of it JAX no longer knows
    the axis, and raises a NameError.

    `batch_groups` divides a batch into equal, consecutive parts that are normalised each by its
    own mean and variance, known as ghost batch norm. The running statistics then move towards the
    means over the parts. Where each device holds whole parts, no device waits for another:
    `model.set_attributes(ovsw.nn.BatchNorm, batch_groups=jax.device_count())` is a batch norm over
    each device's own images under `jit`. Results depend on the number of parts, not of devices.

    Attributes:
      scale: `nnx.Param`, (features,), the :math:`\gamma`; 1 at first.
      bias: `nnx.Param`, (features,), the :math:`\beta`; 0 at first.
      mean: `nnx.BatchStat`, (features,), float32, running; 0 at first.
      var: `nnx.BatchStat`, (features,), float32, running; 1 at first. It averages biased
        variances as in Flax; PyTorch's averages unbiased ones.

    Example:
      >>> import jax.numpy as jnp, ovsw_jax as ovsw
      >>> from flax import nnx
      >>> norm = ovsw.nn.BatchNorm(1, rngs=nnx.Rngs(0))
      >>> norm(jnp.array([[1.0], [3.0]])).round(3).tolist()
      [[-1.0], [1.0]]
      >>> f"{norm.mean[0]:.2f}"
      '0.20'

    Source: Ioffe and Szegedy 2015; parts of a batch: Hoffer et al. 2017.
    """

    def __init__(
        self,
        features: int,
        *,
        momentum: float = 0.9,
        epsilon: float = 1e-5,
        use_running_average: bool = False,
        axis_name: AxisName = None,
        batch_groups: int = 1,
        dtype: jax.typing.DTypeLike | None = None,
        param_dtype: jax.typing.DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        """Makes the layer.

        Args:
          features: channels, the last axis of the input.
          momentum: share of a running statistic that a step keeps, from 0 to 1; PyTorch calls
            1 - momentum its momentum. 1 never changes the running statistics.
          epsilon: added to the variance, above 0.
          use_running_average: whether it begins in evaluation mode.
          axis_name: axis, or tuple of axes, of `pmap`, `shard_map` or `vmap` over which the batch
            is spread; None: all of it is here.
          batch_groups: parts of a batch with statistics of their own; must divide the batch. Only
            without `axis_name`.
          dtype: of the result; None: the one that input, scale and bias promote to.
          param_dtype: of scale and bias.
          rngs: random state, for `params`. Nothing starts at random, but two keys are drawn as
            Flax does, so that swapping the two kinds of layers changes no other layer's start.

        Raises:
          ValueError: if `features` or `batch_groups` is no positive integer, `momentum` or
            `epsilon` is out of range, or both `batch_groups` and `axis_name` are given.
          TypeError: if `momentum` or `epsilon` is no number, `use_running_average` no bool,
            `axis_name` no name, or a dtype not real floating-point.
        """
        check_counts(features=features)
        check_floating_dtype(dtype=dtype, param_dtype=param_dtype)
        check_flag("use_running_average", use_running_average)
        _check_axis_name(axis_name)
        super().__init__(
            features,
            use_running_average=use_running_average,
            momentum=_checked_momentum(momentum),
            epsilon=_checked_epsilon(epsilon),
            dtype=dtype,
            param_dtype=param_dtype,
            axis_name=axis_name,  # type: ignore[arg-type]  # Flax hands it on to lax.pmean
            use_fast_variance=False,
            promote_dtype=_widen,
            rngs=rngs,
        )
        self.batch_groups = batch_groups
        self._check_groups()

    def __call__(
        self, x: Any, use_running_average: bool | None = None, *, mask: jax.Array | None = None
    ) -> jax.Array:
        """Normalises a batch; in training, also moves the running statistics.

        Args:
          x: (batch, ..., features), real; integers are computed with as float32.
          use_running_average: True: evaluation; False: training; None: the layer's own.
          mask: bools that broadcast to `x`: which elements count in training; None: all.

        Returns:
          Array of the shape of `x`, in `dtype`.

        Raises:
          ValueError: if the last axis of `x` is not `features` long, if a batch to train on is
            empty or can't be divided into `batch_groups`, or if nothing says whether it trains.
          TypeError: if `x` is not real.
        """
        evaluates = self.use_running_average if use_running_average is None else use_running_average
        x = self._checked_input(x, trains=not evaluates)
        scale, bias = (None if p is None else p[...] for p in (self.scale, self.bias))
        kept = [p for p in (scale, bias) if p is not None]
        dtype = jnp.result_type(x, *kept) if self.dtype is None else self.dtype
        usual = len(kept) == 2 and self.axis == -1 and self.axis_index_groups is None
        if not evaluates:
            self._check_groups(x, flax_computes=mask is not None or not usual)
        if evaluates or evaluates is None or mask is not None or not usual:
            # Flax sees wide operands alone, so it can't tell which dtype they promote to.
            return super().__call__(x, use_running_average, mask=mask).astype(dtype)
        statistics = self.mean[...], self.var[...]
        wide: Any = self.promote_dtype((x, *statistics, scale, bias), dtype=self.dtype)
        normalize = partial(normalize_batch, axis_name=self.axis_name, shift=wide[1])
        y, mean, var = _by_groups(self.batch_groups, normalize, x, wide[3], wide[4], self.epsilon)
        for statistic, new in ((self.mean, mean), (self.var, var)):
            old = statistic[...]
            moved = self.momentum * old.astype(new.dtype) + (1 - self.momentum) * new
            statistic[...] = moved.astype(old.dtype)
        return y.astype(dtype)

    def _check_groups(self, x: jax.Array | None = None, *, flax_computes: bool = False) -> None:
        """Anew in each call, as attributes are set after a layer is made."""
        check_counts(batch_groups=self.batch_groups)
        if self.batch_groups == 1:
            return
        given = f"batch_groups={self.batch_groups}"
        if self.axis_name is not None:
            raise ValueError(
                f"{given} divides a batch that axis_name={self.axis_name!r} makes one of: leave "
                "axis_name=None for statistics of each part, or batch_groups=1 for those of all."
            )
        if flax_computes:
            raise ValueError(
                f"{given} does not go with mask=, nor with a layer whose scale, bias, axis or "
                "axis_index_groups was changed: Flax computes those, for whole batches. Use "
                "batch_groups=1."
            )
        if x is not None and (x.ndim < 2 or len(x) % self.batch_groups):
            raise ValueError(
                f"input of shape {x.shape} can't be divided by {given}: the batch, its first axis, "
                "must be a multiple of it. Change the size of the batch, or "
                "model.set_attributes(ovsw.nn.BatchNorm, batch_groups=...)."
            )

    def _checked_input(self, x: Any, *, trains: bool) -> jax.Array:
        x = real_array("input", x)
        if self.axis == -1 and x.shape[-1:] != (self.num_features,):
            raise ValueError(
                f"input of shape {x.shape} does not fit {self.num_features} features: its last "
                f"axis must have size {self.num_features} (channels last)."
            )
        if trains and x.size == 0:
            raise ValueError(
                f"input of shape {x.shape} is an empty batch, which has no mean: the running "
                "statistics would become NaN. Skip it, or call model.eval() first."
            )
        return x if jnp.issubdtype(x.dtype, jnp.floating) else x.astype(jnp.float32)


def _checked_momentum(momentum: float) -> float:
    value = known_number("momentum", momentum)
    if not 0 <= value <= 1:
        raise ValueError(
            f"momentum={value:g} is out of range: it is the share of the running statistics that "
            "a step keeps, from 0 to 1. Use 0.9, which PyTorch calls momentum=0.1."
        )
    return value


def _checked_epsilon(epsilon: float) -> float:
    value = known_number("epsilon", epsilon)
    least = float(jnp.finfo(jnp.float32).tiny)
    if not least <= value <= float(jnp.finfo(jnp.float32).max):
        raise ValueError(
            f"epsilon={value:g} is out of range: it keeps a constant feature from a division by "
            "0, so it must be above 0 and finite, in float32 too. Use 1e-5."
        )
    return value


def _check_axis_name(axis_name: Any) -> None:
    names = axis_name if isinstance(axis_name, tuple) else (axis_name,)
    if axis_name is not None and not (names and all(isinstance(n, str) for n in names)):
        raise TypeError(
            f"axis_name={axis_name!r} names no axis: give the name of an axis of pmap, shard_map "
            'or vmap, such as "data", a tuple of names, or None.'
        )


def _by_groups(
    groups: int, normalize: Callable[..., Any], x: jax.Array, *shared: Any
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """What `normalize` gives for each of so many parts of a batch: results, means of statistics."""
    if groups == 1:
        return normalize(x, *shared)
    parts = x.reshape(groups, -1, *x.shape[1:])
    y, mean, var = jax.vmap(normalize, (0, *(None for _ in shared)))(parts, *shared)
    return y.reshape(x.shape), jnp.mean(mean, 0), jnp.mean(var, 0)


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
    *,
    shift: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Batch norm in training.

    Args:
      x: (batch, ..., features).
      scale: (features,), in the dtype to compute in.
      bias: (features,), likewise.
      epsilon: added to the variance; has no gradient.
      axis_name: axis of `pmap` or `shard_map` over which the batch is spread; None: all of it is
        here.
      shift: (features,), subtracted before sums are taken in one pass, as they are on a GPU and a
        TPU; has no gradient. The nearer to the mean, the less rounding: running means.

    Returns:
      The result, and mean and biased variance over all but the last axis, all in the dtype of
      `scale`. Mean and variance have no gradient.
    """
    epsilon = jnp.asarray(epsilon, scale.dtype)
    scale, bias, shift = sharded_as_features(x, scale, bias, lax.stop_gradient(shift))
    return _normalize(*varying_alike(x, scale, bias, epsilon, shift), axis_name)


@partial(jax.custom_vjp, nondiff_argnums=(5,))
def _normalize(
    x: jax.Array,
    scale: jax.Array,
    bias: jax.Array,
    epsilon: jax.Array,
    shift: jax.Array,
    axis_name: AxisName,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    return _forward(x, scale, bias, epsilon, shift, axis_name)[0]


def _forward(
    x: jax.Array,
    scale: jax.Array,
    bias: jax.Array,
    epsilon: jax.Array,
    shift: jax.Array,
    axis_name: AxisName,
) -> tuple[tuple[jax.Array, jax.Array, jax.Array], _Kept]:
    wide = x.astype(scale.dtype)
    if platform() == "cpu":
        mean, var = _two_pass_statistics(wide, axis_name)
    else:
        mean, var = _one_pass_statistics(wide, shift, axis_name)
    centered = wide - along_features(mean, wide)
    inverse = lax.rsqrt(var + epsilon)
    y = centered * along_features(inverse * scale, wide) + along_features(bias, wide)
    return (y, mean, var), _Kept(x, mean, inverse, scale, epsilon)


def _two_pass_statistics(x: jax.Array, axis_name: AxisName) -> tuple[jax.Array, jax.Array]:
    """Mean and biased variance per feature."""
    axes = tuple(range(x.ndim - 1))
    mean = _over_devices(jnp.mean(x, axes), axis_name)
    centered = x - along_features(mean, x)
    return mean, _over_devices(jnp.mean(jnp.square(centered), axes), axis_name)


def _one_pass_statistics(
    x: jax.Array, shift: jax.Array, axis_name: AxisName
) -> tuple[jax.Array, jax.Array]:
    """The same, reading `x` once."""
    moved = x - along_features(shift, x)
    axes, count = tuple(range(x.ndim - 1)), x.size // x.shape[-1]
    total, squares = sum_pair(moved, jnp.square(moved), axes)
    mean, square = (_over_devices(s / count, axis_name) for s in (total, squares))
    return shift + mean, jnp.maximum(square - jnp.square(mean), 0)


def _backward(
    axis_name: AxisName, kept: _Kept, cotangents: tuple[jax.Array, jax.Array, jax.Array]
) -> tuple[jax.Array, ...]:
    dy, x = cotangents[0], kept.x
    axes, count = tuple(range(x.ndim - 1)), x.size // x.shape[-1]
    centered = x.astype(dy.dtype) - along_features(kept.mean, dy)
    normalized = centered * along_features(kept.inverse, dy)
    to_bias, to_scale = sum_pair(dy, dy * normalized, axes)
    # Each device gives the gradients of its own parameters; the caller sums them. The mean is
    # shared, so its part of the gradient is summed here.
    along_one = _over_devices(to_bias / count, axis_name)
    along_x = _over_devices(to_scale / count, axis_name)
    along_one, along_x, slope = (
        along_features(a, dy) for a in (along_one, along_x, kept.inverse * kept.scale)
    )
    to_x = slope * (dy - along_one - normalized * along_x)
    to_epsilon, to_shift = jnp.zeros_like(kept.epsilon), jnp.zeros_like(kept.scale)
    return to_x.astype(x.dtype), to_scale, to_bias, to_epsilon, to_shift


_normalize.defvjp(_forward, _backward)


def _over_devices(mean: jax.Array, axis_name: AxisName) -> jax.Array:
    """The mean over all devices of the mean on each."""
    return mean if axis_name is None else lax.pmean(mean, axis_name)


def _widen(arrays: Any, /, *, dtype: object = None, inexact: bool = True) -> Any:
    """Brings all arrays to float32, or to float64 if one is; `dtype` is left for the result."""
    del dtype, inexact
    wide = accurate_dtype(*(x for x in arrays if x is not None))
    return tuple(None if x is None else jnp.asarray(x, wide) for x in arrays)
