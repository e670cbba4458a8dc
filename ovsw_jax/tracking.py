"""Flip state (Eq. 15) as an observer: what any optimizer does to the signs, without touching it."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from ovsw_jax.fitting import check_params, check_state
from ovsw_jax.flip_state import FlipRule, FlipState, StateKind
from ovsw_jax.hyperparams import Hyperparameter
from ovsw_jax.latent import LatentLeaves, Mask


def track_flip_state(
    *,
    momentum: Hyperparameter = 0.999,
    threshold: Hyperparameter = 1e-4,
    state: StateKind = "packed",
    mask: Mask | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Keeps the same flip state as `silence_aware_decay` and passes updates through.

    Chain it with any optimizer (SGD, Adam, LARS, Bop) to see its flips, silent weights and never
    flipped weights.

    Args:
      momentum: mu of Eq. 15, in (0, 1); at most 0.9995 for packed state, 0.9999 for packed8.
      threshold: sigma of Eq. 16, in (0, 1 - mu].
      state: `"packed"`, two bytes per weight, `"packed8"`, one byte and coarser, or `"ema"`, the
        literal average.
      mask: which leaves are latent weights; see `silence_aware_decay`.

    Returns:
      A gradient transformation whose state is a `FlipState` and whose updates are its input.

    Raises:
      ValueError: as `silence_aware_decay`, except about gradients, which it doesn't read.
      TypeError: at `init` if a latent weight is not a real floating-point array.

    Example:
      >>> import jax.numpy as jnp, optax, ovsw_jax as ovsw
      >>> params = {"latent_kernel": jnp.array([[0.5], [-0.5]])}
      >>> tx = optax.chain(ovsw.track_flip_state(), optax.adam(1.0))
      >>> state = tx.init(params)
      >>> for _ in range(2):
      ...     updates, state = tx.update({"latent_kernel": jnp.ones((2, 1))}, state, params)
      ...     params = optax.apply_updates(params, updates)
      >>> float(ovsw.flip_metrics(state)["total"]["flip_ratio"])  # 0.5 became -0.5
      0.5

    Source: Eq. 15 of OvSW (Xiang et al., ECCV 2024).
    """
    rule = FlipRule(momentum, threshold, state)

    def init_fn(params: Any) -> FlipState:
        return rule.init(LatentLeaves(params, mask))

    def update_fn(
        updates: Any, state: FlipState, params: Any = None, **extra_args: Any
    ) -> tuple[Any, FlipState]:
        del extra_args
        check_params(params, "track_flip_state")
        check_state(state, FlipState)
        latent = LatentLeaves(params, mask)
        new_state = rule.update(state, latent)[0]
        written = rule.written(new_state, latent)
        passed = map(_once, written, latent.take(updates, "gradients"))
        return latent.put(updates, passed), new_state

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _once(written: jax.Array, gradient: Any) -> Any:
    """The gradient unchanged, but available only once the flip state is written.

    Flips are read off the weights, which the optimizer overwrites. Without this order XLA copies
    all weights and their history, which takes three times as long on a CPU.
    """
    if getattr(gradient, "shape", None) != written.shape:
        return gradient  # the transform that reads it raises the error
    return jnp.where(written, gradient, 0)
