"""The state that every kind of flip state is kept in, and what can be read of it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from ovsw_jax.fitting import is_masked
from ovsw_jax.flip_state.kinds import kind_of
from ovsw_jax.flip_state.shares import share


class FlipState(NamedTuple):
    """Flip history of all latent weights; the state of `silence_aware_decay` and its observer.

    The trees are structured like the params, with `optax.MaskedNode` outside the mask.

    Attributes:
      count: int32 scalar, updates made.
      history: per latent weight, a uint16 code (`ovsw_jax.flip_state.packed`), a uint8 code
        (`ovsw_jax.flip_state.packed8`) or a float (`ovsw_jax.flip_state.ema`).
      flip_ratio: per layer, the share of weights that flipped at the latest update, 0 to 1.
      threshold: scalar, sigma at the latest update (float64 if a history is).
      phase: float32 scalar, the fraction of a level that packed countdowns left over; the literal
        average doesn't use it and keeps it as it is.
    """

    count: jax.Array  # type: ignore[assignment]  # optax calls it so; tuple.count is hidden
    history: Any
    flip_ratio: Any
    threshold: jax.Array
    phase: jax.Array

    def layer_metrics(self) -> dict[str, tuple[Any, Any]]:
        """Shares of weights per layer; see `ovsw_jax.ReportsMetrics`."""
        sizes = _over_history(lambda h: h.size, self)
        return {
            "flip_ratio": (self.flip_ratio, sizes),
            "silent_ratio": (_silent_share(self), sizes),
            "never_flipped_ratio": (_never_flipped_share(self), sizes),
        }


def silent_tree(state: FlipState) -> Any:
    """Per latent weight, whether S < sigma (bool), or MaskedNode outside the mask."""
    return _over_history(lambda h: _silent(h, state), state)


def never_flipped_tree(state: FlipState) -> Any:
    """Per latent weight, whether it never flipped (bool), or MaskedNode outside the mask."""
    return _over_history(lambda h: kind_of(h).never_flipped(h), state)


def _silent_share(state: FlipState) -> Any:
    return _over_history(lambda h: share(lambda x: _silent(x, state), h), state)


def _never_flipped_share(state: FlipState) -> Any:
    return _over_history(lambda h: share(kind_of(h).never_flipped, h), state)


def _over_history(f: Callable[[jax.Array], Any], state: FlipState) -> Any:
    return jax.tree.map(lambda h: h if is_masked(h) else f(h), state.history, is_leaf=is_masked)


def _silent(history: jax.Array, state: FlipState) -> jax.Array:
    is_silent = kind_of(history).silent(history, state.threshold, state.phase)
    # Before the first update sigma is not known, and every weight is silent.
    return is_silent | (state.count == 0)
