"""Makes the gradient transformation of an optimizer in `experiments.optimizers`."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

import ovsw_jax as ovsw
from experiments.config import Config
from experiments.optimizers import LINKS, OPTIMIZERS
from experiments.training.networks import KernelAxes


def make_optimizer(
    name: str, config: Config, steps_per_epoch: int, axes: KernelAxes | None
) -> optax.GradientTransformation:
    """The optimizer called `name`; the numbers of `config` may be traced.

    Args:
      name: its key.
      config: its numbers.
      steps_per_epoch: for its schedule.
      axes: of the network's latent kernels; None if it has none.

    Raises:
      ValueError: if it acts on latent weights, and the config's network has none, or can't tell
        which parameters of stacked layers to decay.
    """
    row = OPTIMIZERS[name]
    if config.binary != "both" and not row.of_real_weights:
        usable = [key for key, other in OPTIMIZERS.items() if other.of_real_weights]
        raise ValueError(
            f"optimizer {name} acts on the latent weights of binary layers, and with "
            f"binary={config.binary} there are none: use {' or '.join(usable)}."
        )

    if axes and axes.stacked and not config.decay_1d and "weight_decay" in row.fields:
        raise ValueError(
            f"decay_1d=False keeps weight decay from parameters with one axis, and in a stack of "
            f"layers, as at {axes.stacked[0]}, those have two. Decay them all (--decay-1d), or "
            "hold the layers in an nnx.List."
        )
    scheduled = partial(learning_rate, config, steps_per_epoch)
    return optax.chain(*(_make(link, config, scheduled, axes) for link in row.chain))


def learning_rate(
    config: Config, steps_per_epoch: int, peak: float | None = None
) -> optax.Schedule:
    """Linear warm-up, then a cosine that ends at 1e-4 of the peak; constant within an epoch.

    Source: authors' code: lr (e + 1) / w while e < w, then lr (1 + cos pi (e - w) / (E - w)) / 2
    + 1e-5 in epoch e of E, for lr = 0.1. For another `peak` (None is the config's learning rate)
    the floor is the same share of it; that is ours.
    """
    lr, warmup = config.learning_rate if peak is None else peak, config.warmup_epochs

    def schedule(count: jax.typing.ArrayLike) -> jax.Array:
        epoch = jnp.asarray(count) // steps_per_epoch
        done = (epoch - warmup) / max(config.epochs - warmup, 1)
        cosine = 0.5 * (1 + jnp.cos(jnp.pi * done)) * lr + 1e-4 * lr
        return jnp.where(epoch < warmup, lr * (epoch + 1) / max(warmup, 1), cosine)

    return schedule


def _make(
    link: str,
    c: Config,
    scheduled: Callable[[float], optax.Schedule],
    axes: KernelAxes | None,
) -> optax.GradientTransformation:
    """One link of `experiments.optimizers.LINKS`; `scheduled` takes the peak learning rate."""
    flip_state: Any = {
        "momentum": c.flip_momentum,
        "threshold": c.threshold,
        "state": c.flip_state,
    }
    match link:
        case "ags":
            return ovsw.ags(c.lam, axes=axes and axes.filter)
        case "sad":
            return ovsw.sad(c.tau, **flip_state)
        case "flips":
            if c.binary != "both":  # without signs of weights there are no flips
                return optax.identity()
            return ovsw.track_flip_state(**flip_state)
        case "sgd":
            return optax.chain(
                optax.add_decayed_weights(c.weight_decay, mask=partial(_decayed, c.decay_1d)),
                optax.sgd(scheduled(c.learning_rate), momentum=c.momentum),
            )
        case "lars":
            return ovsw.lars_sgd(
                scheduled(c.learning_rate),
                eta=c.eta,
                momentum=c.momentum,
                weight_decay=c.weight_decay,
                axes=axes and axes.layer,
                decay_1d=c.decay_1d,
            )
        case "adam":
            return optax.adam(scheduled(c.adam_learning_rate))
        case "bop":  # flips the binary weights; Adam trains the rest, as by Bop's authors
            flips = ovsw.bop(c.bop_threshold, adaptivity=c.bop_adaptivity)
            adam = _make("adam", c, scheduled, axes)
            return optax.partition({"binary": flips, "real": adam}, _kinds)
        case _:  # any other rule of the library, which names its numbers as the config does
            return getattr(ovsw, link)(**{field: getattr(c, field) for field in LINKS[link]})


def _decayed(decay_1d: bool, params: Any) -> Any:
    return jax.tree.map(lambda p: decay_1d or jnp.ndim(p) > 1, params)


def _kinds(params: Any) -> Any:
    return jax.tree.map(lambda m: "binary" if m else "real", ovsw.latent_mask(params))
