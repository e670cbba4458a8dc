"""Which latent weights are silent, and which never flipped, of any optimizer state."""

from typing import Any

import jax

from ovsw_jax.fitting import is_masked
from ovsw_jax.flip_state import FlipState, never_flipped_tree, silent_tree
from ovsw_jax.latent import layer_name
from ovsw_jax.reading import ambiguous, check_unbatched, find_states, no_flip_state


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
        raise ValueError(ambiguous(layer_name(path), "flip state"))
    return b if is_masked(a) else a
