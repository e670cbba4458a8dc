"""A bound on latent weights, for rules that let them grow."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from ovsw_jax.fitting import check_params, check_state
from ovsw_jax.hyperparams import FLOAT32_MAX, Hyperparameter, known_values, value_at
from ovsw_jax.latent import LatentLeaves, Mask
from ovsw_jax.precision import accurate_dtype

FLOAT32_TINY = float(np.finfo(np.float32).tiny)


def clip_latent(
    limit: Hyperparameter = 1.0, *, mask: Mask | None = None
) -> optax.GradientTransformationExtraArgs:
    r"""Shortens updates so that latent weights stay in [-limit, limit].

    .. math::
      U \leftarrow \min(\max(U, -c - W), c - W)

    with the bounds rounded so that W + U, as `optax.apply_updates` rounds it, is never beyond
    :math:`\pm c`. The next update brings in a weight that is already outside. An update that
    ends inside passes bit for bit, and NaN stays NaN. An infinite weight stays, as no update can
    bring it back.

    Chain it last, after the learning rate: a later transform that changes updates moves the bound.
    The size of latent weights has no effect in binary layers with batch norm, and OvSW doesn't need
    a bound on them. It matters together with OvSW: the floor of `scale_by_ags` is relative to
    |W|, so a bound on W is one on the floor; and a weight that waits at the bound doesn't flip, so
    it falls silent, and `silence_aware_decay` pulls it inwards.

    Args:
      limit: the bound :math:`c > 0`: a number, an array or a schedule of the update count. 1 in
        BinaryConnect and Larq. What the dtype of the weights can't hold is rounded towards 0.
      mask: which leaves are latent weights: a pytree of bools, a function from params to one, or
        None for `latent_mask`. Other leaves pass unchanged.
        `optax.inject_hyperparams` takes a function for a schedule unless you pass it
        `static_args=("mask",)`.

    Returns:
      A gradient transformation without state, or with `optax.ScaleByScheduleState` for a schedule.
      Updates keep their dtype, unless weights have another: then both are added in float32 (or
      float64), and the updates have that dtype.

    Raises:
      ValueError: if `limit` is known to be out of range (schedules and traced values are not
        checked); at `init` if the mask selects nothing; at `update` if params are missing or have
        other shapes than the updates.
      TypeError: if `limit` is not a number, or a latent weight or its update is not a real
        floating-point array.

    Example:
      >>> import jax.numpy as jnp, optax, ovsw_jax as ovsw
      >>> params = {"latent_kernel": jnp.array([[0.9, -0.5], [3.0, 0.0]])}
      >>> tx = optax.chain(optax.sgd(0.5), ovsw.clip_latent(1.0))
      >>> grads = {"latent_kernel": jnp.array([[-1.0, -1.0], [0.0, 0.5]])}
      >>> updates, state = tx.update(grads, tx.init(params), params)
      >>> optax.apply_updates(params, updates)["latent_kernel"].tolist()
      [[1.0, 0.0], [1.0, -0.25]]

    Source: Courbariaux et al., "BinaryConnect: Training Deep Neural Networks with Binary Weights
    during Propagations", NeurIPS 2015, Algorithm 1; larq.constraints.WeightClip.
    """
    _check_limit(limit)
    scheduled = callable(limit)

    def init_fn(params: Any) -> optax.OptState:
        LatentLeaves(params, mask)  # raises where it selects nothing
        if scheduled:
            return optax.ScaleByScheduleState(jnp.zeros((), jnp.int32))
        return optax.EmptyState()

    def update_fn(
        updates: Any, state: Any, params: Any = None, **extra_args: Any
    ) -> tuple[Any, optax.OptState]:
        del extra_args
        check_params(params, "clip_latent")
        check_state(state, optax.ScaleByScheduleState if scheduled else optax.EmptyState)
        latent = LatentLeaves(params, mask)
        now = value_at(limit, state.count) if scheduled else limit
        latent.check_fits(limit=now)
        clipped = [
            _clip(u, w, now) for u, w in zip(latent.gradients(updates), latent.weights, strict=True)
        ]
        if scheduled:
            state = optax.ScaleByScheduleState(optax.safe_increment(state.count))
        return latent.put(updates, clipped), state

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _clip(update: jax.Array, weight: jax.Array, limit: Any) -> jax.Array:
    dtype = accurate_dtype(update, weight)
    added_in = update.dtype if update.dtype == weight.dtype else dtype
    bound, w = _bound(limit, weight.dtype, dtype), weight.astype(dtype)
    highest, lowest = _largest_step(w, bound, added_in), -_largest_step(-w, bound, added_in)
    # Not by the sum itself: XLA may round it differently here and where the update is added.
    return jnp.clip(update.astype(added_in), lowest, highest)


def _largest_step(weight: jax.Array, bound: jax.Array, dtype: Any) -> jax.Array:
    """The largest finite number of `dtype` that added to the weights is at most the bound."""
    step = _rounded(bound - weight, dtype)
    limits = jnp.finfo(dtype)
    below = jnp.nextafter(step.astype(dtype), jnp.asarray(-jnp.inf, dtype))
    step = jnp.where(weight + step > bound, below, step.astype(dtype))
    return jnp.clip(step, limits.min, limits.max)


def _bound(limit: Any, dtype: Any, wide: Any) -> jax.Array:
    """The largest number of `dtype` up to the limit, as an array of `wide`."""
    if not isinstance(limit, jax.Array):
        known = np.asarray(limit, np.float64)
        nearest = known.astype(wide)
        limit = np.where(nearest > known, np.nextafter(nearest, nearest.dtype.type(0)), nearest)
    at_most = jnp.asarray(limit, wide)
    rounded = _rounded(at_most, dtype)
    below = jnp.nextafter(rounded.astype(dtype), jnp.zeros((), dtype)).astype(wide)
    return jnp.where(rounded > at_most, below, rounded)


def _rounded(x: jax.Array, dtype: Any) -> jax.Array:
    """`x` to the precision of `dtype`, also where XLA would skip a conversion there and back."""
    limits, grid = jnp.finfo(dtype), float(jnp.finfo(dtype).smallest_subnormal)
    rounded = lax.reduce_precision(x, limits.nexp, limits.nmant)
    if grid < jnp.finfo(x.dtype).tiny:
        return rounded
    # reduce_precision flushes subnormals to 0, which float16 has at 6e-5 already.
    return jnp.where(jnp.abs(x) < limits.tiny, jnp.round(x / grid) * grid, rounded)


def _check_limit(limit: Hyperparameter) -> None:
    for v in known_values("limit", limit):
        if not FLOAT32_TINY <= v <= FLOAT32_MAX:
            raise ValueError(
                f"limit={v:g} is out of range: it must be finite and > 0, in float32 too. Use 1.0 "
                "as BinaryConnect does, or omit clip_latent for no bound."
            )
