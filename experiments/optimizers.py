"""The optimizers that are compared: one recipe, with and without the rules of OvSW.

Every one keeps the flip state, so that all report flips, silent and never-flipped weights alike.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

import ovsw_jax as ovsw
from experiments.configs import Config


def _sgd(c: Config) -> tuple[optax.GradientTransformation, ...]:
    return (ovsw.track_flip_state(**_flips(c)),)


def _ags(c: Config) -> tuple[optax.GradientTransformation, ...]:
    return ovsw.ags(c.lam), ovsw.track_flip_state(**_flips(c))


def _sad(c: Config) -> tuple[optax.GradientTransformation, ...]:
    return (ovsw.sad(c.tau, **_flips(c)),)


def _ovsw(c: Config) -> tuple[optax.GradientTransformation, ...]:
    return ovsw.ags(c.lam), ovsw.sad(c.tau, **_flips(c))


RULES: dict[str, Callable[[Config], tuple[optax.GradientTransformation, ...]]] = {
    "sgd": _sgd,
    "ags": _ags,
    "sad": _sad,
    "ovsw": _ovsw,
}


def make_optimizer(name: str, config: Config, steps_per_epoch: int) -> optax.GradientTransformation:
    """SGD with momentum and weight decay, behind the rules of `name`."""

    def decayed(params: Any) -> Any:
        return jax.tree.map(lambda p: config.decay_1d or jnp.ndim(p) > 1, params)

    return optax.chain(
        *RULES[name](config),
        optax.add_decayed_weights(config.weight_decay, mask=decayed),
        optax.sgd(learning_rate(config, steps_per_epoch), momentum=config.momentum),
    )


def learning_rate(config: Config, steps_per_epoch: int) -> optax.Schedule:
    """Linear warm-up, then a cosine that ends at 1e-5; constant within an epoch.

    Source: authors' code: lr (e + 1) / w while e < w, then lr (1 + cos pi (e - w) / (E - w)) / 2
    + 1e-5 in epoch e of E.
    """
    lr, warmup = config.learning_rate, config.warmup_epochs

    def schedule(count: jax.typing.ArrayLike) -> jax.Array:
        epoch = jnp.asarray(count) // steps_per_epoch
        done = (epoch - warmup) / max(config.epochs - warmup, 1)
        cosine = 0.5 * (1 + jnp.cos(jnp.pi * done)) * lr + 1e-5
        return jnp.where(epoch < warmup, lr * (epoch + 1) / max(warmup, 1), cosine)

    return schedule


def _flips(c: Config) -> dict[str, Any]:
    return {"momentum": c.flip_momentum, "threshold": c.threshold, "state": c.flip_state}
