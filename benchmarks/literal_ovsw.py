"""OvSW as Algorithm 3 reads, in plain JAX: the peer that the library's rules are compared with.

Eight bytes of state a latent weight: S, and a copy of the weights of the step before, both in
float32. No guard against numbers that overflow, no metrics, no options.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

import ovsw_jax as ovsw

MIN_GRADIENT_NORM, MIN_WEIGHT_NORM = 1e-6, 1e-3


class LiteralState(NamedTuple):
    """State of the rules; None at parameters that are no latent weights."""

    average: Any
    previous: Any


def literal_ovsw(
    lam: float = 0.04, tau: float = 9e-4, momentum: float = 0.999, threshold: float = 1e-4
) -> optax.GradientTransformation:
    """Both rules in front of SGD.

    Args:
      lam: floor of a filter's gradient over its weights.
      tau: decay of silent weights.
      momentum: mu of S.
      threshold: sigma, below which a weight is silent.
    """

    def init(params: Any) -> LiteralState:
        latent = _only_latent(params)
        return LiteralState(jax.tree.map(jnp.zeros_like, latent), jax.tree.map(jnp.copy, latent))

    def update(gradients: Any, state: LiteralState, params: Any = None) -> Any:
        weights = _only_latent(params)
        averages = jax.tree.map(average, state.average, weights, state.previous)
        updates = jax.tree.map(
            lambda s, g, w: g if s is None else rules(g, w, s),
            averages,
            gradients,
            weights,
            is_leaf=lambda s: s is None,
        )
        return updates, LiteralState(averages, weights)

    def average(s: jax.Array, weight: jax.Array, previous: jax.Array) -> jax.Array:
        flipped = (weight >= 0) != (previous >= 0)
        return momentum * s + (1 - momentum) * flipped.astype(s.dtype)

    def rules(gradient: jax.Array, weight: jax.Array, s: jax.Array) -> jax.Array:
        g_norm = jnp.maximum(_norms(gradient), MIN_GRADIENT_NORM)
        w_norm = jnp.maximum(_norms(weight), MIN_WEIGHT_NORM)
        scaled = jnp.where(g_norm / w_norm < lam, lam * w_norm / g_norm * gradient, gradient)
        return scaled + tau * jnp.where(s < threshold, weight, 0)

    return optax.GradientTransformation(init, update)


def _only_latent(params: Any) -> Any:
    return jax.tree.map(lambda p, latent: p if latent else None, params, ovsw.latent_mask(params))


def _norms(x: jax.Array) -> jax.Array:
    return jnp.sqrt(jnp.sum(jnp.square(x), axis=tuple(range(x.ndim - 1)), keepdims=True))
