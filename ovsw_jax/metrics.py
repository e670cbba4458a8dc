"""What the flip state says of each layer and of the whole network."""

from typing import Any

import jax
import jax.numpy as jnp

from ovsw_jax.ags import AgsState
from ovsw_jax.fitting import is_masked
from ovsw_jax.flip_state import (
    FlipState,
    never_flipped_share,
    never_flipped_tree,
    silent_share,
    silent_tree,
)
from ovsw_jax.latent import layer_name, named_leaves

Metrics = dict[str, dict[str, jax.Array]]


def flip_metrics(opt_state: Any) -> Metrics:
    """Flips, silent weights and rescaled filters, per layer and in total.

    Args:
      opt_state: state of any optimizer that contains `scale_by_ags`, `silence_aware_decay` or
        `track_flip_state`, however nested (chain, masked, partition, MultiSteps,
        inject_hyperparams, `nnx.Optimizer.opt_state`). Under `vmap`, call it inside.

    Returns:
      A dict from layer name (its path, as `layer1/0/conv1`), and from `"total"`, to float32
      scalars. With a flip state: `flip_ratio`, `silent_ratio`, `never_flipped_ratio`, shares of
      weights (0 to 1) at the latest update. With AGS: `rescaled_filter_ratio`, the share of
      filters below the floor, and `grad_weight_ratio`, the mean over filters of |G_i| / |W_i|.
      Totals weigh every weight, or every filter, alike. A stack of layers in one kernel, as
      `nnx.vmap` makes it, counts as one layer.

    Raises:
      ValueError: if `opt_state` contains neither, holds a leading axis of `vmap`, tracks a layer
        twice, or has two layers of one name or one called `total`.

    Example:
      >>> import jax.numpy as jnp, optax, ovsw_jax as ovsw
      >>> params = {"conv": {"latent_kernel": jnp.ones((3, 3, 8, 4))}}
      >>> metrics = ovsw.flip_metrics(ovsw.ovsw_sgd(0.1).init(params))
      >>> sorted(metrics), float(metrics["conv"]["never_flipped_ratio"])
      (['conv', 'total'], 1.0)

    Source: Eqs. 14 to 16 of OvSW (Xiang et al., ECCV 2024).
    """
    layers: Metrics = {}
    weights: dict[str, dict[str, Any]] = {}  # what one layer counts in the totals

    def add(name: str, metric: str, value: Any, count: Any) -> None:
        if name == "total" or metric in layers.get(name, {}):
            raise ValueError(_ambiguous(name, metric))
        layers.setdefault(name, {})[metric] = jnp.asarray(value, jnp.float32)
        weights.setdefault(name, {})[metric] = count

    for state in (*find_states(opt_state, FlipState), *find_states(opt_state, AgsState)):
        check_unbatched(state, "flip_metrics")
    for flips in find_states(opt_state, FlipState):
        sizes = {name: h.size for name, h in named_leaves(flips.history)}
        for metric, tree in (
            ("flip_ratio", flips.flip_ratio),
            ("silent_ratio", silent_share(flips)),
            ("never_flipped_ratio", never_flipped_share(flips)),
        ):
            for name, value in named_leaves(tree):
                add(name, metric, value, sizes[name])
    for scaled in find_states(opt_state, AgsState):
        filters = dict(named_leaves(scaled.filters))
        for metric in ("rescaled_filter_ratio", "grad_weight_ratio"):
            for name, value in named_leaves(getattr(scaled, metric)):
                add(name, metric, value, filters[name])
    if not layers:
        raise ValueError(no_flip_state(opt_state))
    layers["total"] = _totals(layers, weights)
    return layers


def silent_mask(opt_state: Any) -> Any:
    """Which latent weights are silent: S below the threshold.

    Args:
      opt_state: as for `flip_metrics`.

    Returns:
      A tree like the params with a bool array at every latent kernel and `optax.MaskedNode`
      elsewhere. Before the first update every weight is silent.

    Raises:
      ValueError: if `opt_state` contains no flip state, or one with a leading axis of `vmap`.

    Example:
      >>> import jax.numpy as jnp, ovsw_jax as ovsw
      >>> params = {"conv": {"latent_kernel": jnp.ones((2, 1)), "bias": jnp.zeros(1)}}
      >>> ovsw.silent_mask(ovsw.sad().init(params))["conv"]["latent_kernel"].tolist()
      [[True], [True]]

    Source: Eq. 16 of OvSW (Xiang et al., ECCV 2024).
    """
    states = find_states(opt_state, FlipState)
    for state in states:
        check_unbatched(state, "silent_mask")
    return _merged([silent_tree(s) for s in states], opt_state)


def never_flipped_mask(opt_state: Any) -> Any:
    """Which latent weights have kept the sign of their initialisation.

    Args:
      opt_state: as for `flip_metrics`.

    Returns:
      A tree like the params with a bool array at every latent kernel and `optax.MaskedNode`
      elsewhere.

    Raises:
      ValueError: if `opt_state` contains no flip state.

    Example:
      >>> import jax.numpy as jnp, ovsw_jax as ovsw
      >>> tx = ovsw.track_flip_state()
      >>> start = {"latent_kernel": jnp.array([[0.5], [-0.5]])}
      >>> later = {"latent_kernel": jnp.array([[0.5], [0.5]])}
      >>> _, state = tx.update(start, tx.init(start), start)
      >>> _, state = tx.update(start, state, later)
      >>> ovsw.never_flipped_mask(state)["latent_kernel"].tolist()
      [[True], [False]]

    Source: what Figs. 5 and 6 of OvSW (Xiang et al., ECCV 2024) plot.
    """
    return _merged([never_flipped_tree(s) for s in find_states(opt_state, FlipState)], opt_state)


def find_states(opt_state: Any, kind: type) -> list[Any]:
    """All states of one kind in `opt_state`, in tree order."""

    def is_kind(x: Any) -> bool:
        return isinstance(x, kind)

    return [s for s in jax.tree.leaves(opt_state, is_leaf=is_kind) if is_kind(s)]


def _totals(layers: Metrics, weights: dict[str, dict[str, Any]]) -> dict[str, jax.Array]:
    totals = {}
    for metric in dict.fromkeys(m for values in layers.values() for m in values):
        names = [name for name in layers if metric in layers[name]]
        count = jnp.stack([jnp.asarray(weights[n][metric], jnp.float32) for n in names])
        value = jnp.stack([layers[n][metric] for n in names])
        totals[metric] = jnp.sum(value * count) / jnp.maximum(jnp.sum(count), 1)
    return totals


def _merged(trees: list[Any], opt_state: Any) -> Any:
    """One tree from those of several transforms (optax.partition), each with its own leaves."""
    if not trees:
        raise ValueError(no_flip_state(opt_state))
    merged = trees[0]
    for tree in trees[1:]:
        merged = jax.tree_util.tree_map_with_path(_either, merged, tree, is_leaf=is_masked)
    return merged


def _either(path: Any, a: Any, b: Any) -> Any:
    if not (is_masked(a) or is_masked(b)):
        raise ValueError(_ambiguous(layer_name(path), "flip state"))
    return b if is_masked(a) else a


def check_unbatched(state: FlipState | AgsState, reader: str) -> None:
    """Raises ValueError if `state` has an axis of `vmap`; `reader` is the public name called."""
    if jnp.ndim(state.count):
        raise ValueError(
            f"the optimizer state has a leading axis of {jnp.shape(state.count)}, as vmap makes "
            f"it. Call {reader} inside: jax.vmap(ovsw.{reader})(opt_state)."
        )


def _ambiguous(name: str, metric: str) -> str:
    return (
        f"{metric} of {name!r} is ambiguous: the optimizer tracks that layer twice, or two layers "
        "have that name ('total' is the name of the totals). Chain either ovsw.sad() or "
        "ovsw.track_flip_state(), or look at one part of the optimizer state at a time."
    )


def no_flip_state(opt_state: Any) -> str:
    """What to say of an optimizer state in which nothing is tracked."""
    return (
        f"the optimizer state ({type(opt_state).__name__}) holds no flip state of any layer. Chain "
        "ovsw.track_flip_state() with the optimizer to observe it, or ovsw.sad() to act on it."
    )
