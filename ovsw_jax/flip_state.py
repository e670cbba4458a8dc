"""Flip state: when each latent weight last changed sign, updated once a step (Eq. 15)."""

from types import ModuleType
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ovsw_jax import ema, packed, packed8
from ovsw_jax.counting import share
from ovsw_jax.fitting import is_masked
from ovsw_jax.hyperparams import (
    Hyperparameter,
    check_state_momentum,
    check_threshold,
    value_at,
)
from ovsw_jax.latent import LatentLeaves
from ovsw_jax.precision import accurate_dtype

StateKind = Literal["packed", "packed8", "ema"]

_KINDS: dict[str, ModuleType] = {"packed": packed, "packed8": packed8, "ema": ema}


def kind_named(state: StateKind) -> ModuleType:
    """The module of one kind of flip state; ValueError if there is none."""
    if not isinstance(state, str) or state not in _KINDS:
        raise ValueError(
            f"state={state!r} is not a kind of flip state: use 'packed' (two bytes a weight), "
            "'packed8' (one byte, coarser) or 'ema' (the literal float average)."
        )
    return _KINDS[state]


def kind_of(history: jax.Array) -> ModuleType:
    """The module of the kind that a history is of, which its dtype tells."""
    return {"uint16": packed, "uint8": packed8}.get(history.dtype.name, ema)


class FlipState(NamedTuple):
    """Flip history of all latent weights; the state of `silence_aware_decay` and its observer.

    The trees are structured like the params, with `optax.MaskedNode` outside the mask.

    Attributes:
      count: int32 scalar, updates made.
      history: per latent weight, a uint16 code (`ovsw_jax.packed`), a uint8 code
        (`ovsw_jax.packed8`) or a float (`ovsw_jax.ema`).
      flip_ratio: per layer, the share of weights that flipped at the latest update, 0 to 1.
      threshold: scalar, sigma at the latest update (float64 if a history is).
      phase: float32 scalar, what the packed countdown left over; of no meaning to the literal
        average, which leaves it as it is.
    """

    count: jax.Array  # type: ignore[assignment]  # optax calls it so; tuple.count is hidden
    history: Any
    flip_ratio: Any
    threshold: jax.Array
    phase: jax.Array


class FlipRule:
    """Eq. 15 with its hyperparameters: makes a FlipState and moves it on by one step."""

    def __init__(self, momentum: Hyperparameter, threshold: Hyperparameter, state: StateKind):
        """Checks the hyperparameters; see `ovsw_jax.track_flip_state` for their meaning."""
        self.kind = kind_named(state)
        check_state_momentum(momentum)
        check_threshold(threshold, momentum)
        self.momentum, self.threshold, self.state = momentum, threshold, state
        self.kind.check_range(momentum, threshold)

    def init(self, latent: LatentLeaves) -> FlipState:
        """The state of weights that have not flipped: initialisation is not a flip."""
        history = [self.kind.init(w) for w in latent.weights]
        return FlipState(
            jnp.zeros((), jnp.int32),
            latent.only(history),
            latent.only_scalars(jnp.zeros((), jnp.float32) for _ in history),
            jnp.zeros((), accurate_dtype(*history)),
            jnp.zeros((), jnp.float32),
        )

    def update(self, state: FlipState, latent: LatentLeaves) -> tuple[FlipState, list[jax.Array]]:
        """Compares signs with the last ones and moves S on.

        Args:
          state: as `init` or the previous `update` gave it.
          latent: the latent weights of this step.

        Returns:
          The new state, and per latent kernel a bool array: which weights are silent now.
        """
        history = self._history(state, latent)
        mu = value_at(self.momentum, state.count)
        sigma = jnp.asarray(value_at(self.threshold, state.count), accurate_dtype(*history))
        latent.check_fits(momentum=mu, threshold=sigma)
        updated, ratios = [], []
        for h, weight in zip(history, latent.weights, strict=True):
            counted = share(self._has_flipped, weight, h)
            # Weights may be loaded between init and the first update; that is no flip either.
            ratios.append(jnp.where(state.count > 0, counted, 0))
            # A share is never negative, but XLA can't know. It must count before it overwrites
            # the history, and so the weights, or it copies both to keep them for the count.
            flipped = self._has_flipped(weight, h) & (state.count > 0) & (counted >= 0)
            updated.append(self.kind.update(h, weight >= 0, flipped, mu, state.phase))
        new = FlipState(
            optax.safe_increment(state.count),
            latent.only(updated),
            latent.only_scalars(ratios),
            sigma,
            self.kind.next_phase(state.phase, mu),
        )
        return new, [self.kind.silent(h, new.threshold, new.phase) for h in updated]

    def written(self, state: FlipState, latent: LatentLeaves) -> list[jax.Array]:
        """True for every weight, as a bool array per kernel that XLA must read history to know."""
        dtype = state.threshold.dtype
        top = jnp.asarray(float(jnp.finfo(dtype).max), dtype)  # S is below that, whatever it is
        history = latent.state(state.history, "flip state")
        return [self.kind.silent(h, top, state.phase) for h in history]

    def _has_flipped(self, weight: jax.Array, history: jax.Array) -> jax.Array:
        return (weight >= 0) != self.kind.last_sign_positive(history)

    def _history(self, state: FlipState, latent: LatentLeaves) -> list[jax.Array]:
        history = latent.state(state.history, "flip state")
        for name, h, weight in zip(latent.names, history, latent.weights, strict=True):
            if h.dtype != jax.eval_shape(self.kind.init, weight).dtype:
                raise ValueError(
                    f"flip state of {name!r} has dtype {h.dtype}, which is not that of "
                    f"state={self.state!r} for {weight.dtype} weights. Use the state= and the "
                    "dtype of the params that the optimizer state was made with."
                )
        return history


def silent_tree(state: FlipState) -> Any:
    """Per latent weight, whether S < sigma (bool), or MaskedNode outside the mask."""
    return _over_history(lambda h: _silent(h, state), state)


def never_flipped_tree(state: FlipState) -> Any:
    """Per latent weight, whether it never flipped (bool), or MaskedNode outside the mask."""
    return _over_history(lambda h: kind_of(h).never_flipped(h), state)


def silent_share(state: FlipState) -> Any:
    """Per layer, the share of weights that are silent, or MaskedNode outside the mask."""
    return _over_history(lambda h: share(lambda x: _silent(x, state), h), state)


def never_flipped_share(state: FlipState) -> Any:
    """Per layer, the share of weights that never flipped, or MaskedNode outside the mask."""
    return _over_history(lambda h: share(kind_of(h).never_flipped, h), state)


def _over_history(f: Any, state: FlipState) -> Any:
    return jax.tree.map(lambda h: h if is_masked(h) else f(h), state.history, is_leaf=is_masked)


def _silent(history: jax.Array, state: FlipState) -> jax.Array:
    is_silent = kind_of(history).silent(history, state.threshold, state.phase)
    # Before the first update sigma is not known, and every weight is silent.
    return is_silent | (state.count == 0)
