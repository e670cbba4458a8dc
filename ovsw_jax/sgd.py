"""Algorithm 3 as one optimizer."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from ovsw_jax.ags import scale_by_ags
from ovsw_jax.flip_state import StateKind
from ovsw_jax.hyperparams import Hyperparameter, check_coefficient, check_sgd_momentum
from ovsw_jax.latent import Mask
from ovsw_jax.sad import silence_aware_decay


def ovsw_sgd(
    learning_rate: optax.ScalarOrSchedule,
    *,
    momentum: float = 0.9,
    weight_decay: Hyperparameter = 5e-4,
    lam: Hyperparameter = 0.04,
    tau: Hyperparameter = 9e-4,
    flip_momentum: Hyperparameter = 0.999,
    threshold: Hyperparameter = 1e-4,
    state: StateKind = "packed",
    axes: Sequence[int] | None = None,
    mask: Mask | None = None,
    decay_1d: bool = False,
) -> optax.GradientTransformationExtraArgs:
    r"""SGD with OvSW for latent kernels and plain SGD for all other parameters (Algorithm 3).

    A thin chain of `scale_by_ags`, `silence_aware_decay`, `optax.add_decayed_weights` and
    `optax.sgd`; write the chain yourself to change any of its parts. The defaults are those of
    the authors' code for CIFAR.

    Args:
      learning_rate: number or schedule.
      momentum: of SGD, m in :math:`V \leftarrow m V + G + \varphi W`.
      weight_decay: :math:`\varphi \ge 0`, on every parameter of two or more axes.
      lam: floor of |G_i| / |W_i|; see `scale_by_ags`.
      tau: decay of silent weights; see `silence_aware_decay`.
      flip_momentum: mu of the flip state.
      threshold: sigma of the flip state.
      state: kind of flip state, `"packed"`, `"packed8"` or `"ema"`; see `silence_aware_decay`.
      axes: axes that make up one filter; None for all but the last.
      mask: which leaves are latent weights; None for `latent_mask`.
      decay_1d: also decay parameters with fewer than two axes (biases, batch norm), as the
        authors' code does for CIFAR and not for ImageNet.

    Returns:
      A gradient transformation.

    Raises:
      ValueError, TypeError: as `scale_by_ags` and `silence_aware_decay`.

    Example:
      >>> import jax, jax.numpy as jnp, optax, ovsw_jax as ovsw
      >>> params = {"dense": {"latent_kernel": jnp.ones((4, 2)), "bias": jnp.zeros(2)}}
      >>> tx = ovsw.ovsw_sgd(optax.cosine_decay_schedule(0.1, 1000))
      >>> state = tx.init(params)
      >>> grads = jax.tree.map(jnp.ones_like, params)
      >>> updates, state = tx.update(grads, state, params)
      >>> params = optax.apply_updates(params, updates)

    Source: OvSW (Xiang et al., ECCV 2024), Algorithm 3.
    """
    check_coefficient("learning_rate", learning_rate)
    check_coefficient("weight_decay", weight_decay)
    if callable(momentum):
        raise TypeError(
            f"momentum={momentum!r} of SGD is a function, and optax.sgd takes a number: for a "
            "schedule wrap ovsw_sgd in optax.inject_hyperparams."
        )
    check_sgd_momentum(momentum)

    def decayed(params: Any) -> Any:
        return jax.tree.map(lambda p: decay_1d or jnp.ndim(p) > 1, params)

    return optax.with_extra_args_support(
        optax.chain(
            scale_by_ags(lam, axes=axes, mask=mask),
            silence_aware_decay(
                tau, momentum=flip_momentum, threshold=threshold, state=state, mask=mask
            ),
            optax.add_decayed_weights(weight_decay, mask=decayed),
            optax.sgd(learning_rate, momentum=momentum),
        )
    )
