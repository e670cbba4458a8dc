"""Bop: flips the signs of binary weights by their average gradient, without latent weights."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ovsw_jax.fitting import check_params, check_state
from ovsw_jax.hyperparams import FLOAT32_MAX, Hyperparameter, known_values, value_at
from ovsw_jax.latent import LatentLeaves, Mask
from ovsw_jax.precision import accurate_dtype


class BopState(NamedTuple):
    """State of `bop`.

    Attributes:
      count: int32 scalar, updates made.
      momentum: tree like the params with `optax.MaskedNode` outside the mask: per weight the
        average gradient m, float32 (float64 for float64 weights).
    """

    count: jax.Array  # type: ignore[assignment]  # optax calls it so; tuple.count is hidden
    momentum: Any


def bop(
    threshold: Hyperparameter = 1e-6,
    *,
    adaptivity: Hyperparameter = 1e-3,
    mask: Mask | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Bop: flips weights of -1 and +1 whose average gradient is large and has their sign.

    .. math::
      m &\leftarrow (1-\gamma) m + \gamma G \\
      W &\leftarrow -W \quad\text{where } |m| > \tau
      \text{ and } \operatorname{sign} m = \operatorname{sign} W

    The inequality is strict, as larq's documentation words it ("exceeds the threshold"), so that
    without a gradient no threshold flips a weight. m is kept after a flip.

    The latent kernels then hold -1 and +1. A kernel that doesn't yet (a usual initialisation)
    counts as its signs, with sign(0) = +1; the first update, new - W, moves it to its new signs.
    `optax.apply_updates` then gives exactly -1 or +1 where W was -1 or +1, and where it keeps its
    sign. Where it also flips there is not always a float that added to W gives the opposite sign
    exactly: the weight may be a rounding off (0.99999994), and is exact after the next update that
    doesn't flip it, after two in any case. Start from signs to have them exact throughout.
    Weights beyond 1 / eps (8e6 in float32, 128 in bfloat16) take a few updates.

    A NaN gradient makes m NaN and stays there: such a weight never flips again. Guard with
    `optax.apply_if_finite`.

    Args:
      threshold: :math:`\tau \ge 0`, in units of the gradient. Larger: fewer flips.
      adaptivity: :math:`\gamma`, in (0, 1]. Larger: a shorter memory, more and noisier flips.
      mask: which leaves are binary weights: a pytree of bools, a function from params to one, or
        None for `latent_mask`. Other leaves pass unchanged and cost no state: give them an
        optimizer through `optax.partition`.
        `optax.inject_hyperparams` takes a function for a schedule unless you pass it
        `static_args=("mask",)`.

    Both numbers may be an array or a schedule of the update count.

    Returns:
      A gradient transformation with a `BopState`. Its updates are steps, not gradients: chain
      no learning rate, weight decay or other scaling after it. They have the dtype of the
      weights.

    Raises:
      ValueError: if a hyperparameter is known to be out of range (schedules and traced values are
        not checked); at `init` if the mask selects nothing; at `update` if params are missing or
        have other shapes than the gradients.
      TypeError: if a hyperparameter is not a number, or a weight or gradient in the mask is not a
        real floating-point array.

    Example:
      >>> import jax, jax.numpy as jnp, optax, ovsw_jax as ovsw
      >>> params = {"latent_kernel": jnp.array([[0.5], [-0.2], [0.1]]), "bias": jnp.zeros(1)}
      >>> def kinds(params):
      ...     return jax.tree.map(lambda b: "binary" if b else "real", ovsw.latent_mask(params))
      >>> split = {"binary": ovsw.bop(0.01, adaptivity=0.1), "real": optax.adam(0.01)}
      >>> tx = optax.chain(ovsw.track_flip_state(), optax.partition(split, kinds))
      >>> grads = {"latent_kernel": jnp.array([[1.0], [1.0], [0.05]]), "bias": jnp.ones(1)}
      >>> updates, state = tx.update(grads, tx.init(params), params)
      >>> optax.apply_updates(params, updates)["latent_kernel"].tolist()
      [[-1.0], [-1.0], [1.0]]

    Source: Helwegen et al., "Latent Weights Do Not Exist: Rethinking Binarized Neural Network
    Optimization", NeurIPS 2019, Algorithm 1; larq.optimizers.Bop.
    """
    _check_threshold(threshold)
    _check_adaptivity(adaptivity)

    def init_fn(params: Any) -> BopState:
        latent = LatentLeaves(params, mask)
        return BopState(
            jnp.zeros((), jnp.int32),
            latent.only(jnp.zeros_like(w, accurate_dtype(w)) for w in latent.weights),
        )

    def update_fn(
        updates: Any, state: BopState, params: Any = None, **extra_args: Any
    ) -> tuple[Any, BopState]:
        del extra_args
        check_params(params, "bop")
        check_state(state, BopState)
        latent = LatentLeaves(params, mask)
        tau, gamma = value_at(threshold, state.count), value_at(adaptivity, state.count)
        latent.check_fits(threshold=tau, adaptivity=gamma)
        momenta = [
            _average(m, g, gamma)
            for m, g in zip(
                latent.averages(state.momentum, "momentum"), latent.gradients(updates), strict=True
            )
        ]
        steps = [_step(w, m, tau) for w, m in zip(latent.weights, momenta, strict=True)]
        return latent.put(updates, steps), BopState(
            optax.safe_increment(state.count), latent.only(momenta)
        )

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _average(momentum: jax.Array, gradient: jax.Array, gamma: jax.Array | float) -> jax.Array:
    dtype = momentum.dtype
    take = jnp.asarray(gamma, dtype)
    return (1 - take) * momentum + take * gradient.astype(dtype)


def _step(weight: jax.Array, momentum: jax.Array, tau: jax.Array | float) -> jax.Array:
    """What to add to the weights so that they are their new signs."""
    positive = weight >= 0
    flips = (jnp.abs(momentum) > jnp.asarray(tau, momentum.dtype)) & ((momentum > 0) == positive)
    sign = jnp.where(positive ^ flips, 1, -1).astype(weight.dtype)
    # Beyond 1 / eps, sign - weight rounds to -weight: 0, whose sign is +. These go by steps.
    limits = jnp.finfo(weight.dtype)
    goal = sign * jnp.maximum(1, jnp.asarray(limits.eps, weight.dtype) * jnp.abs(weight))
    return jnp.clip(goal - weight, limits.min, limits.max)


def _check_threshold(threshold: Hyperparameter) -> None:
    for v in known_values("threshold", threshold):
        if not 0 <= v <= FLOAT32_MAX:
            raise ValueError(
                f"threshold={v:g} of Bop is out of range: it must be finite and >= 0, in float32 "
                "too and in units of the gradient. Start from 1e-6; a larger one flips fewer signs."
            )


def _check_adaptivity(adaptivity: Hyperparameter) -> None:
    for v in known_values("adaptivity", adaptivity):
        if not 0 < v <= 1:
            raise ValueError(
                f"adaptivity={v:g} of Bop is out of range: it must be above 0 and at most 1 (the "
                "share of the newest gradient in the average). Start from 1e-3."
            )
