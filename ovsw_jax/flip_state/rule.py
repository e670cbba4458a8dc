"""Eq. 15 on all latent weights of a tree: makes a flip state and updates it."""

import jax
import jax.numpy as jnp
import optax

from ovsw_jax.flip_state.kinds import StateKind, kind_named
from ovsw_jax.flip_state.shares import shares
from ovsw_jax.flip_state.state import FlipState
from ovsw_jax.hyperparams import (
    Hyperparameter,
    check_state_momentum,
    check_threshold,
    value_at,
)
from ovsw_jax.latent import LatentLeaves
from ovsw_jax.precision import accurate_dtype
from ovsw_jax.rows import apart, in_rows, laid_out


class FlipRule:
    """Eq. 15 with its hyperparameters: makes a FlipState and updates it at every step."""

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
        """Compares signs with the last ones and updates S.

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
        flips = shares(self._has_flipped, latent.weights, history)
        for h, weight, counted in zip(history, latent.weights, flips, strict=True):
            # Weights may be loaded between init and the first update; that is no flip either.
            ratios.append(jnp.where(state.count > 0, counted, 0))
            # A share is never negative, but XLA can't know. It must count before it overwrites
            # the history, and so the weights, or it copies both to keep them for the count.
            flipped = self._has_flipped(weight, h) & (state.count > 0) & (counted >= 0)
            updated.append(self.kind.update(h, weight >= 0, flipped, mu, state.phase))
        read = updated
        if in_rows(latent.weights):
            updated = apart(updated)
            read = [laid_out(h) for h in updated]
        new = FlipState(
            optax.safe_increment(state.count),
            latent.only(updated),
            latent.only_scalars(ratios),
            sigma,
            self.kind.next_phase(state.phase, mu),
        )
        return new, [self.kind.silent(h, new.threshold, new.phase) for h in read]

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
