"""Flip state of one kind made into another, so that a run resumes with another `state=`."""

from typing import Any

import jax
import jax.numpy as jnp

from ovsw_jax.flip_state import FlipState, FlipStateKind, StateKind, kind_named, kind_of
from ovsw_jax.precision import accurate_dtype
from ovsw_jax.reading import check_unbatched, find_states, no_flip_state


def convert_flip_state(opt_state: Any, state: StateKind, *, dtype: Any = None) -> Any:
    """The same optimizer state with its flip state as `"packed"`, `"packed8"` or `"ema"`.

    Training resumes with an optimizer made with that `state=`. Signs last seen and marks of weights
    that never flipped are kept. The average S is rounded to the nearest level: by up to 0.00025
    nats in `"packed"`, 0.04 in `"packed8"`. An S below the lowest level becomes that level, which
    stands for S ~ 0. What is `"packed"` or `"packed8"` comes back from `"ema"` as it was, if no
    step is made in between.

    It works under `jit` with `state` and `dtype` static, keeps shardings, and leaves alone what has
    that kind already.

    Args:
      opt_state: as for `flip_metrics`: any nesting of Optax states, `nnx.Optimizer.opt_state`.
      state: the kind to make.
      dtype: of the averages of `"ema"`: float64 for float64 weights, which a packed state doesn't
        tell. None leaves averages as they are, and makes float32 of codes.

    Returns:
      A tree like `opt_state`, in which the histories have another dtype.

    Raises:
      ValueError: if there is no such kind, `dtype` is no dtype of an average, or `opt_state`
        contains no flip state or one with a leading axis of `vmap`.

    Example:
      >>> import jax.numpy as jnp, ovsw_jax as ovsw
      >>> params = {"latent_kernel": jnp.ones((2, 1))}
      >>> opt_state = ovsw.convert_flip_state(ovsw.sad().init(params), "ema")
      >>> updates, opt_state = ovsw.sad(state="ema").update(params, opt_state, params)
      >>> opt_state.history["latent_kernel"].dtype
      dtype('float32')

    Source: ours; S is that of Eq. 15 of OvSW (Xiang et al., ECCV 2024).
    """
    kind = kind_named(state)
    _check_average_dtype(dtype)
    found = find_states(opt_state, FlipState)
    if not found:
        raise ValueError(no_flip_state(opt_state))
    for flips in found:
        check_unbatched(flips, "convert_flip_state")
    return jax.tree.map(
        lambda x: _converted(x, kind, dtype) if isinstance(x, FlipState) else x,
        opt_state,
        is_leaf=lambda x: isinstance(x, FlipState),
    )


def _converted(flips: FlipState, kind: FlipStateKind, dtype: Any) -> FlipState:
    # In an nnx.Optimizer a scalar is a Variable, a tree of one leaf.
    (phase,) = jax.tree.leaves(flips.phase)
    history = jax.tree.map(lambda h: _history(h, phase, kind, dtype), flips.history)
    sigma_dtype = accurate_dtype(*jax.tree.leaves(history))
    threshold = jax.tree.map(lambda sigma: jnp.asarray(sigma, sigma_dtype), flips.threshold)
    return flips._replace(history=history, threshold=threshold)


def _history(history: jax.Array, phase: jax.Array, kind: FlipStateKind, dtype: Any) -> jax.Array:
    before = kind_of(history)
    if kind is not before:
        average = before.average(history, phase)
        history = kind.of_average(average, before.last_sign_positive(history), phase)
    return history if dtype is None else kind.in_dtype(history, dtype)


def _check_average_dtype(dtype: Any) -> None:
    if dtype is None:
        return
    try:
        known = jnp.dtype(dtype)
    except TypeError:
        known = None
    if known not in (jnp.float32, jnp.float64):
        raise ValueError(
            f"dtype={dtype!r} is no dtype of an average: use float32, or float64 for float64 "
            "weights (those of float16 and bfloat16 weights are float32 too)."
        )
    if jax.dtypes.canonicalize_dtype(known) != known:
        raise ValueError(
            "dtype=float64 needs 64-bit types, which are switched off. Omit dtype, as no "
            "weight is float64 then, or set jax_enable_x64."
        )
