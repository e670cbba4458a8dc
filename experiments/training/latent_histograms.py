"""Counts of latent weights by size and kind, for the histograms of a run."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from experiments.run.histograms import BINS, KINDS, LIMIT


def count(
    latent: Mapping[str, jax.Array],
    silent: Mapping[str, jax.Array],
    never_flipped: Mapping[str, jax.Array],
) -> dict[str, dict[str, jax.Array]]:
    """Counts by layer, from weights and masks by layer; pure. NaN is in no interval."""
    return {
        layer: _count(w, silent[layer].astype(int) + never_flipped[layer])
        for layer, w in latent.items()
    }


def _count(latent: jax.Array, kind: jax.Array) -> dict[str, jax.Array]:
    limit = LIMIT * jnp.sqrt(jnp.mean(jnp.square(latent)))
    # An even number of intervals, so that zero, where a sign flips, is a border.
    place = jnp.floor((latent / jnp.where(limit > 0, limit, 1) + 1) * (BINS / 2))
    index = jnp.clip(place, 0, BINS - 1).astype(jnp.int32)
    index = jnp.where(jnp.isfinite(latent), index, BINS)
    zeros = jnp.zeros((len(KINDS), BINS), jnp.int32)
    return {"limit": limit, "counts": zeros.at[kind, index].add(1, mode="drop")}
