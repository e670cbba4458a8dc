"""Adaptive Gradient Scaling (Eq. 14): a floor under each filter's |gradient| / |weights|."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ovsw_jax.axes import Axes, axes_of_kernels, check_axes, warn_if_unclear
from ovsw_jax.fitting import check_params, check_state
from ovsw_jax.hyperparams import Hyperparameter, check_coefficient, value_at
from ovsw_jax.latent import LatentLeaves, Mask, mean
from ovsw_jax.nn._kernels.sums import sum_pair
from ovsw_jax.precision import accurate_dtype
from ovsw_jax.rows import in_rows, sums

# Norms are bounded from below so that a dead filter or an all-zero gradient divides by no zero.
MIN_GRADIENT_NORM = 1e-6
MIN_WEIGHT_NORM = 1e-3


class AgsState(NamedTuple):
    """State of `scale_by_ags`: what the latest update saw, one scalar per latent kernel.

    The trees are structured like the params, with `optax.MaskedNode` outside the mask.

    Attributes:
      count: int32 scalar, updates made.
      rescaled_filter_ratio: share of filters whose gradient was below the floor, 0 to 1.
      grad_weight_ratio: mean over filters of |G_i| / |W_i|, before scaling.
      filters: number of filters, the weight of a layer in the totals of `flip_metrics`.
    """

    count: jax.Array  # type: ignore[assignment]  # optax calls it so; tuple.count is hidden
    rescaled_filter_ratio: Any
    grad_weight_ratio: Any
    filters: Any

    def layer_metrics(self) -> dict[str, tuple[Any, Any]]:
        """Shares and means over filters, per layer; see `ovsw_jax.ReportsMetrics`."""
        return {
            "rescaled_filter_ratio": (self.rescaled_filter_ratio, self.filters),
            "grad_weight_ratio": (self.grad_weight_ratio, self.filters),
        }


class _Scaled(NamedTuple):
    gradient: jax.Array
    rescaled_filter_ratio: jax.Array
    grad_weight_ratio: jax.Array
    filters: jax.Array


def scale_by_ags(
    lam: Hyperparameter = 0.04, *, axes: Axes | None = None, mask: Mask | None = None
) -> optax.GradientTransformationExtraArgs:
    r"""Scales each filter's gradient up to `lam` times the norm of its latent weights (Eq. 14).

    .. math::
      G_i \leftarrow \lambda \frac{\|W_i\|}{\|G_i\|} G_i
      \quad\text{where } \frac{\|G_i\|}{\|W_i\|} < \lambda

    with 2-norms over one output filter :math:`i`, :math:`\|G_i\| \ge 10^{-6}` and
    :math:`\|W_i\| \ge 10^{-3}`. Every other filter keeps its gradient bit for bit: also one whose
    norm overflows or is NaN, so that NaN is seen downstream rather than hidden. It is the
    lower-bound counterpart of `optax.adaptive_grad_clip`.

    Args:
      lam: the floor :math:`\lambda \ge 0` of |G_i| / |W_i|: a number, an array or a schedule.
        Authors' code: 0.04 for CIFAR, 0.01 for ImageNet.
      axes: axes that make up one filter. `ovsw.filter_axes(model)` gives them for any network.

        - A tuple of integers: the same for every latent kernel, such as `(1, 2, 3)` for
          convolutions stacked along a leading axis of layers.
        - A tree of such tuples with one for each latent kernel, structured like the params or
          like their upper levels, or a function from params to one.
        - None: all but the last, which is right for kernels (in, out) and HWIO. Kernels of 3, 5
          or more axes are taken so too, with a warning at `init`: a 1-D convolution, a stack of
          dense layers and attention look alike. A kernel of 4 axes is taken as HWIO without one,
          so 1-D convolutions stacked once, dense layers stacked twice, and attention stacked once
          must be given their axes.
      mask: which leaves are latent weights: a pytree of bools, a function from params to one, or
        None for `latent_mask`. Other leaves pass unchanged and cost no state.
        `optax.inject_hyperparams` takes a function for a schedule unless it is told otherwise:
        `static_args=("mask",)`; likewise for a function as `axes`.

    Returns:
      A gradient transformation with an `AgsState`. Norms are taken in float32 (float64 for
      float64 leaves); gradients keep their dtype.

    Raises:
      ValueError: if `lam` is known to be negative or not finite (schedules and traced values are
        not checked); at `init` if the mask selects nothing, or `axes` lack a latent kernel, are of
        no params, don't exist, or are named twice; at `update` if params are missing, or shaped
        otherwise than the gradients.
      TypeError: if `lam` is no number, `axes` hold anything but integers, or a latent weight or
        gradient is no real floating-point array.

    Example:
      >>> import jax.numpy as jnp, ovsw_jax as ovsw
      >>> params = {"latent_kernel": jnp.array([[3.0, 1.0], [4.0, 0.0]])}  # norms 5 and 1
      >>> tx = ovsw.scale_by_ags(lam=0.1)
      >>> grads = {"latent_kernel": jnp.array([[0.1, 0.5], [0.0, 0.0]])}  # norms 0.1 and 0.5
      >>> scaled, state = tx.update(grads, tx.init(params), params)
      >>> scaled["latent_kernel"].tolist()  # the first filter is lifted to 0.1 * 5
      [[0.5, 0.5], [0.0, 0.0]]

    Source: OvSW (Xiang et al., ECCV 2024), Eq. 14 and Algorithm 3.
    """
    check_coefficient("lam", lam)
    check_axes(axes)

    def init_fn(params: Any) -> AgsState:
        latent = LatentLeaves(params, mask)
        if axes_of_kernels(axes, params, latent) is None:
            warn_if_unclear(latent)

        def zeros() -> Any:  # a tree of its own for each field: buffers may be donated
            return latent.only_scalars(jnp.zeros((), jnp.float32) for _ in latent.names)

        return AgsState(jnp.zeros((), jnp.int32), zeros(), zeros(), zeros())

    def update_fn(
        updates: Any, state: AgsState, params: Any = None, **extra_args: Any
    ) -> tuple[Any, AgsState]:
        del extra_args
        check_params(params, "scale_by_ags")
        check_state(state, AgsState)
        latent = LatentLeaves(params, mask)
        latent.check_only(state.filters, "state of scale_by_ags")
        floor = value_at(lam, state.count)
        latent.check_fits(lam=floor)
        filters = axes_of_kernels(axes, params, latent)
        if filters is None:
            filters = [tuple(range(w.ndim - 1)) for w in latent.weights]
        gradients, weights = latent.gradients(updates), latent.weights
        if not np.ndim(floor) and in_rows(gradients, weights):
            scaled = _scale_in_rows(gradients, weights, floor, filters)
        else:
            scaled = [
                _scale(g, w, floor, filter_axes)
                for g, w, filter_axes in zip(gradients, weights, filters, strict=True)
            ]
        return latent.put(updates, (s.gradient for s in scaled)), AgsState(
            optax.safe_increment(state.count),
            latent.only_scalars(s.rescaled_filter_ratio for s in scaled),
            latent.only_scalars(s.grad_weight_ratio for s in scaled),
            latent.only_scalars(s.filters for s in scaled),
        )

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


ags = scale_by_ags


def _scale(
    gradient: jax.Array, weight: jax.Array, lam: jax.Array | float, axes: tuple[int, ...]
) -> _Scaled:
    dtype = accurate_dtype(gradient, weight)
    g, floor = gradient.astype(dtype), jnp.asarray(lam, dtype)
    g_norm = _norm(jnp.sum(jnp.square(g), axes, keepdims=True), MIN_GRADIENT_NORM)
    w_squares = jnp.square(weight.astype(dtype))
    w_norm = _norm(jnp.sum(w_squares, axes, keepdims=True), MIN_WEIGHT_NORM)
    factor, below, ratio = _factors(g_norm, w_norm, floor)
    return _Scaled(
        _lifted(gradient, factor),
        mean(below),
        mean(ratio),
        jnp.asarray(ratio.size, jnp.float32),
    )


def _scale_in_rows(
    gradients: Sequence[jax.Array],
    weights: Sequence[jax.Array],
    lam: jax.Array | float,
    axes: Sequence[tuple[int, ...]],
) -> list[_Scaled]:
    """The same of all layers, with the filters of each in a row."""
    dtype = accurate_dtype(*gradients, *weights)
    g_squares = sums([jnp.square(g.astype(dtype)) for g in gradients], axes, adjacent=True)
    w_squares = sums([jnp.square(w.astype(dtype)) for w in weights], axes)
    g_norm = _norm(g_squares.values, MIN_GRADIENT_NORM)
    w_norm = _norm(w_squares.values, MIN_WEIGHT_NORM)
    factor, below, ratio = _factors(g_norm, w_norm, jnp.asarray(lam, dtype))
    filled, sizes = g_squares.filled, g_squares.sizes
    lifted, kept, ratios = (jnp.where(filled, x.astype(dtype), 0) for x in (below, ~below, ratio))
    lifted_count, ratio_total = sum_pair(lifted, ratios, (1,))
    # All filters are counted, too: of a constant XLA would make a copy for each layer.
    filters = lifted_count + jnp.sum(kept, 1, dtype)
    means = (x / jnp.maximum(filters, 1) for x in (lifted_count, ratio_total))
    numbers = [x.astype(jnp.float32) for x in (*means, filters)]
    scaled = []
    for row, g, over in zip(g_squares.of, gradients, axes, strict=True):
        shape = [1 if axis in over else n for axis, n in enumerate(g.shape)]
        of_filters = factor[row, : sizes[row]].reshape(shape)
        scaled.append(_Scaled(_lifted(g, of_filters), *(x[row] for x in numbers)))
    return scaled


def _norm(squares: jax.Array, least: float) -> jax.Array:
    return jnp.maximum(jnp.sqrt(squares), least)


def _factors(
    g_norm: jax.Array, w_norm: jax.Array, floor: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Of each filter by what to scale it, whether it is below the floor, and |G_i| / |W_i|."""
    # Weights whose norm overflows are left alone, and counted as a ratio of 0; no quotient or
    # product of them is NaN on the way, which jax_debug_nans would stop at.
    ratio = jnp.where(w_norm == jnp.inf, 0, g_norm) / w_norm
    below = (ratio < floor) & jnp.isfinite(w_norm)
    # Above 1, or 0 for "leave it". XLA repeats all but a quotient for each weight of the filter.
    return floor * jnp.where(below, w_norm, 0) / g_norm, below, ratio


def _lifted(gradient: jax.Array, factor: jax.Array) -> jax.Array:
    scaled = (gradient.astype(factor.dtype) * factor).astype(gradient.dtype)
    return jnp.where(factor > 0, scaled, gradient)
