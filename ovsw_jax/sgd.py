"""Algorithm 3 as one optimizer."""

from typing import Any

import jax
import numpy as np
import optax

from ovsw_jax.ags import AgsState, scale_by_ags
from ovsw_jax.axes import Axes
from ovsw_jax.fitting import check_entry, check_fits, check_params, check_state, lacks_gradient
from ovsw_jax.flip_state import StateKind
from ovsw_jax.hyperparams import (
    Hyperparameter,
    check_coefficient,
    check_flag,
    check_sgd_momentum,
    value_at,
)
from ovsw_jax.latent import Mask, all_gradients, leaves_like, named_leaves
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
    axes: Axes | None = None,
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
      weight_decay: :math:`\varphi \ge 0`, on every parameter of two or more axes. Biases stacked
        by `nnx.vmap` have two: keep the decay from them by a chain of your own.
      lam: floor of |G_i| / |W_i|; see `scale_by_ags`.
      tau: decay of silent weights; see `silence_aware_decay`.
      flip_momentum: mu of the flip state.
      threshold: sigma of the flip state.
      state: kind of flip state, `"packed"`, `"packed8"` or `"ema"`; see `silence_aware_decay`.
      axes: axes that make up one filter, such as `ovsw.filter_axes(model)`; None for all but the
        last; see `scale_by_ags`.
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

    check_flag("decay_1d", decay_1d)

    def is_decayed(x: Any) -> bool:
        return decay_1d or np.ndim(x) > 1

    parts = optax.chain(
        scale_by_ags(lam, axes=axes, mask=mask),
        silence_aware_decay(
            tau, momentum=flip_momentum, threshold=threshold, state=state, mask=mask
        ),
        optax.add_decayed_weights(
            weight_decay, mask=lambda tree: jax.tree.map(is_decayed, tree, is_leaf=_is_none)
        ),
        optax.sgd(learning_rate, momentum=momentum),
    )

    def update_fn(
        updates: Any, state: Any, params: Any = None, **extra_args: Any
    ) -> tuple[Any, Any]:
        check_params(params, "ovsw_sgd")
        check_state(state[0] if type(state) in (tuple, list) and state else state, AgsState)
        named = named_leaves(params)
        treedef: Any = jax.tree.structure(params)
        beta, phi = (value_at(h, state[0].count) for h in (learning_rate, weight_decay))
        check_fits(named, learning_rate=beta, momentum=momentum)
        check_fits([(name, w) for name, w in named if is_decayed(w)], weight_decay=phi)
        gradients = all_gradients(updates, params)
        _check_momentum(named, gradients, treedef, state)
        given = treedef.unflatten(None if lacks_gradient(g) else g for g in gradients)
        moved, new_state = parts.update(given, tuple(state), params, **extra_args)
        if any(map(lacks_gradient, gradients)):
            leaves = zip(gradients, treedef.flatten_up_to(moved), strict=True)
            moved = treedef.unflatten(g if lacks_gradient(g) else u for g, u in leaves)
            new_state = _completed(new_state, tuple(state))
        return moved, new_state

    return optax.GradientTransformationExtraArgs(parts.init, update_fn)


def _check_momentum(named: Any, gradients: Any, treedef: Any, state: Any) -> None:
    """Raises where optax.sgd would spread a momentum of another shape over a parameter."""
    momenta = leaves_like(treedef, state[-1][0].trace, "momentum")
    for (name, weight), gradient, momentum in zip(named, gradients, momenta, strict=True):
        if not lacks_gradient(gradient):
            check_entry(name, momentum, weight, "momentum")


def _completed(state: Any, before: Any) -> Any:
    """The state with the momentum that optax.sgd drops where there is no gradient."""
    return jax.tree.map(lambda x, old: old if x is None else x, state, before, is_leaf=_is_none)


def _is_none(x: Any) -> bool:
    return x is None
