"""What `ovsw.inspect` measures in one call of a binary layer: scalars of arrays, pure.

Shares are from 0 to 1. Of a layer that is called several times, or holds a stack, each call gives
its own.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ovsw_jax.graph.observed import Observed
from ovsw_jax.nn.sign_kinds import Sign
from ovsw_jax.precision import accurate_dtype


class SignedCall(NamedTuple):
    """One call of a binary layer.

    Fields:
      x: (*batch, ..., channels), the input.
      before_sign: what the sign of the input is applied to: `x`, maybe divided; None without one.
      input_sign: the sign of the input, or None.
      latent: (..., filters) latent weights; None if the layer has none.
      kernel_sign: their sign, or None.
      y: (*batch, ..., filters), the output.
      batch_axes: number of axes before those of one sample.
    """

    x: jax.Array
    before_sign: jax.Array | None
    input_sign: Sign | None
    latent: jax.Array | None
    kernel_sign: Sign | None
    y: jax.Array
    batch_axes: int


def measure(call: SignedCall) -> dict[str, jax.Array]:
    """The measures of one call, from which `of_calls` makes those of a `LayerInspection`.

    One that has no meaning for the layer is missing: those of a sign that it doesn't have, and
    those over the samples of a batch if there is one sample alone.
    """
    x, finite = _floating(call.x), jnp.isfinite(call.x)
    measured = {
        "negative_input_ratio": _share(x < 0),
        "input_mean_square": _mean_square(jnp.where(finite, x, 0)),
        "nonfinite_inputs": jnp.sum(~finite, dtype=jnp.float32),
    }
    if call.input_sign is not None and call.before_sign is not None:
        signs, slope = _sign_and_slope(call.input_sign, call.before_sign)
        positive = signs > 0
        measured["positive_input_ratio"] = _share(positive)
        measured["input_gradient_ratio"] = _share(slope != 0)
        measured |= _if_several("constant_input_ratio", positive, call.batch_axes)
    measured |= _if_several("constant_output_ratio", call.y, call.batch_axes)
    if call.latent is not None:
        measured["nonfinite_weight_ratio"] = _share(~jnp.isfinite(call.latent))
        if call.kernel_sign is not None:
            _, slope = _sign_and_slope(call.kernel_sign, call.latent)
            measured["blocked_weight_ratio"] = _share(slope == 0)
    return measured


def of_calls(calls: Iterable[Mapping[str, Observed]], weights: int) -> dict[str, jax.Array]:
    """The measures of a layer over all of its calls.

    Args:
      calls: what was observed of each.
      weights: how many latent weights the layer has, with its whole stack.
    """
    found: dict[str, list[Observed]] = {}
    for call in calls:
        for name, one in call.items():
            found.setdefault(name, []).append(one)
    means = {name: _mean(several) for name, several in found.items()}
    if "input_mean_square" in means:
        means["input_rms"] = jnp.sqrt(means.pop("input_mean_square"))
    if "nonfinite_weight_ratio" in means:
        # Several calls see the same weights, steps of a scan others.
        means["nonfinite_weights"] = jnp.round(weights * means.pop("nonfinite_weight_ratio"))
    of_inputs = found.get("nonfinite_inputs", [])
    if of_inputs:
        means["nonfinite_inputs"] = _sum(jnp.sum(one.total) for one in of_inputs)
    # A conditional may run none of the calls that were traced.
    return means | {"calls": _sum([jnp.float32(0), *(one.times for one in of_inputs)])}


def _mean(several: Sequence[Observed]) -> jax.Array:
    """Over calls, the steps of loops, and axes of `vmap`; 0 if nothing was run."""
    total = _sum(jnp.mean(one.total) for one in several)
    return total / jnp.maximum(_sum(one.times for one in several), 1)


def _sum(numbers: Iterable[jax.Array]) -> jax.Array:
    return jnp.sum(jnp.stack(list(numbers)))


def _share(flags: jax.Array) -> jax.Array:
    # A sum of integers is exact; one of floats would stop growing at 2^24.
    return jnp.sum(flags, dtype=jnp.int32).astype(jnp.float32) / max(1, flags.size)


def _mean_square(x: jax.Array) -> jax.Array:
    return jnp.sum(jnp.square(x), dtype=jnp.float32) / max(1, x.size)


def _floating(x: jax.Array) -> jax.Array:
    return x if jnp.issubdtype(x.dtype, jnp.floating) else x.astype(accurate_dtype(x))


def _sign_and_slope(sign: Sign, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Signs, and the pseudo-gradient that the sign's own derivative passes to each element.

    The gradient behind the sign differs from element to element: of a constant one, a sign that
    standardises its argument passes none.
    """
    signs, pull_back = jax.vjp(sign, _floating(x))
    uneven = 2 + jnp.cos(jnp.arange(signs.size, dtype=jnp.float32))
    (slope,) = pull_back(signs * uneven.reshape(signs.shape).astype(signs.dtype))
    return signs, slope


def _if_several(name: str, x: jax.Array, batch_axes: int) -> dict[str, Any]:
    """The share of channels that are the same for all samples, if there are several.

    A channel may differ from position to position, as at the padded border of a convolution of
    nothing but +1: it tells samples apart only if it differs from sample to sample.
    """
    if math.prod(x.shape[:batch_axes]) < 2 or x.size == 0:
        return {}
    first = x[(slice(1),) * batch_axes]
    return {name: _share(jnp.all(x == first, axis=tuple(range(x.ndim - 1))))}
