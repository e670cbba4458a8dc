"""Silence Awareness Decaying (Eq. 16): extra weight decay for the weights that stopped flipping."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from ovsw_jax.fitting import check_params, check_state
from ovsw_jax.flip_state import FlipRule, FlipState, StateKind
from ovsw_jax.hyperparams import Hyperparameter, check_coefficient, value_at
from ovsw_jax.latent import LatentLeaves, Mask
from ovsw_jax.precision import accurate_dtype


def silence_aware_decay(
    tau: Hyperparameter = 9e-4,
    *,
    momentum: Hyperparameter = 0.999,
    threshold: Hyperparameter = 1e-4,
    state: StateKind = "packed",
    mask: Mask | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Tracks sign flips and decays the latent weights that stopped flipping (Eqs. 15-16).

    .. math::
      S &\leftarrow \mu S + (1-\mu) [\operatorname{sign} W(t) \ne \operatorname{sign} W(t-1)] \\
      G &\leftarrow G + \tau [S < \sigma] W

    with sign(0) = +1. S starts at 0: at the first step every weight is silent, and initialisation
    is not a flip. Chain it after `scale_by_ags`, so that the decay is not rescaled.

    Args:
      tau: decay of silent weights, >= 0. Authors' code: 9e-4 for CIFAR, 2e-5 for ImageNet.
      momentum: :math:`\mu`, in (0, 1); at most 0.9995 for packed state, 0.9999 for packed8.
      threshold: :math:`\sigma`, in (0, 1 - mu]. With the defaults one flip keeps a weight from
        being silent for 2,302 steps; see `silence_horizon` and `threshold_for_horizon`.
      state: `"packed"`, two bytes per weight; `"packed8"`, one byte, with which a weight falls
        silent up to 40 steps early or late of those 2,302, more if it flips a lot; or `"ema"`,
        the literal S in float32 (float64 for float64 weights).
      mask: which leaves are latent weights: a pytree of bools, a function from params to one, or
        None for `latent_mask`. Other leaves pass unchanged and cost no state.
        `optax.inject_hyperparams` takes a function for a schedule unless you pass it
        `static_args=("mask",)`.

    Any of the four numbers may be an array or a schedule of the update count.

    Returns:
      A gradient transformation whose state is a `FlipState`; read it with `flip_metrics`,
      `silent_mask` and `never_flipped_mask`.

    Raises:
      ValueError: if a hyperparameter is known to be out of range or its horizon not to fit the
        state (schedules and traced values are not checked); at `init` if the mask selects
        nothing; at `update` if params are missing or have other shapes than the gradients.
      TypeError: if a hyperparameter is not a number, or a latent weight or gradient is not a real
        floating-point array.

    Example:
      >>> import jax.numpy as jnp, ovsw_jax as ovsw
      >>> params = {"latent_kernel": jnp.array([[2.0], [-4.0]])}
      >>> tx = ovsw.silence_aware_decay(tau=0.5)
      >>> grads = {"latent_kernel": jnp.zeros((2, 1))}
      >>> decayed, state = tx.update(grads, tx.init(params), params)
      >>> decayed["latent_kernel"].tolist()  # no weight has flipped: all are silent
      [[1.0], [-2.0]]

    Source: OvSW (Xiang et al., ECCV 2024), Eqs. 15, 16 and Algorithm 3, line 9 done lazily.
    """
    check_coefficient("tau", tau)
    rule = FlipRule(momentum, threshold, state)

    def init_fn(params: Any) -> FlipState:
        return rule.init(LatentLeaves(params, mask))

    def update_fn(
        updates: Any, state: FlipState, params: Any = None, **extra_args: Any
    ) -> tuple[Any, FlipState]:
        del extra_args
        check_params(params, "silence_aware_decay")
        check_state(state, FlipState)
        latent = LatentLeaves(params, mask)
        gradients = latent.gradients(updates)
        new_state, silent = rule.update(state, latent)
        coefficient = value_at(tau, state.count)
        latent.check_fits(tau=coefficient)
        decayed = [
            _decay(g, w, s, coefficient)
            for g, w, s in zip(gradients, latent.weights, silent, strict=True)
        ]
        return latent.put(updates, decayed), new_state

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


sad = silence_aware_decay


def _decay(
    gradient: jax.Array, weight: jax.Array, silent: jax.Array, tau: jax.Array | float
) -> jax.Array:
    dtype = accurate_dtype(gradient, weight)
    decay = jnp.where(silent, jnp.asarray(tau, dtype) * weight.astype(dtype), 0)
    return (gradient.astype(dtype) + decay).astype(gradient.dtype)
