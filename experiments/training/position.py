"""The position of a training between two steps, and what a checkpoint holds of it."""

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax

from experiments.config import Config
from experiments.config.config_diff import settings_in_checkpoint
from experiments.data.batches import Batch
from experiments.run.checkpoint import Checkpoints
from experiments.training.step import StepMetrics, TrainState, latent_weights
from experiments.training.step_group import StepGroup


@dataclass
class Epoch:
    """An epoch under way.

    Attributes:
      number: from 1 on.
      order_key: (members,) keys from which the order of its images was drawn.
      signs: of the latent weights at its start, by layer.
      batches: the remaining ones.
      sums: of what its steps measured.
      steps: how many are done.
      images: of the timed steps, which leave out compilation.
      seconds: that the timed steps took.
    """

    number: int
    order_key: jax.Array
    signs: dict[str, jax.Array]
    batches: Generator[Batch]
    sums: StepMetrics
    steps: int = 0
    images: int = 0
    seconds: float = 0.0


# Its fields that a checkpoint's JSON holds.
_POSITION: dict[str, Callable[[Any], Any]] = {
    "number": int,
    "steps": int,
    "images": int,
    "seconds": float,
}


class _Kept(NamedTuple):
    """All arrays that the next step, and the metrics of this epoch, depend on."""

    state: TrainState
    sums: StepMetrics
    order_key: jax.Array
    signs: dict[str, jax.Array]


def begin(group: StepGroup, state: TrainState, number: int) -> tuple[TrainState, Epoch]:
    """The state before an epoch's first step, and the epoch."""
    order_key, signs = state.key, signs_of(state)
    seeds = [m.seed for m in group.members]
    state, batches = group.steps.batches(state, seeds, number)
    return state, Epoch(number, order_key, signs, batches, group.steps.no_metrics(state))


def save(
    checkpoints: Checkpoints, group: StepGroup, config: Config, state: TrainState, epoch: Epoch
) -> None:
    """Writes a checkpoint in the background.

    Raises:
      WriteError: if this one or the one before can't be written.
    """
    position = {name: getattr(epoch, name) for name in _POSITION}
    about = {"config": settings_in_checkpoint(config), "members": group.keys, "position": position}
    number = (epoch.number - 1) * (group.steps.steps_per_epoch + 1) + epoch.steps
    checkpoints.save(number, _Kept(state, epoch.sums, epoch.order_key, epoch.signs), about)


def restore(
    checkpoints: Checkpoints,
    group: StepGroup,
    config: Config,
    initial: TrainState,
    report: Callable[[str], None],
) -> tuple[TrainState, Epoch] | None:
    """State and epoch of the newest undamaged checkpoint; None if there is none.

    `initial` is a state of the same structure and sharding; `report` is called for damaged
    checkpoints.

    Raises:
      ValueError: if it is of another config, network or flip state.
    """
    like = _Kept(initial, group.steps.no_metrics(initial), initial.key, signs_of(initial))
    expected = {"config": settings_in_checkpoint(config)}
    found = checkpoints.restore(like, expected, report)
    if found is None:
        return None
    (state, sums, order_key, signs), about = found
    position = _position(about, config.epochs, group.steps.steps_per_epoch)
    seeds = [m.seed for m in group.members]
    batches = group.steps.batches_from(order_key, seeds, position["number"], position["steps"])
    return state, Epoch(order_key=order_key, signs=signs, batches=batches, sums=sums, **position)


def _position(about: Mapping[str, Any], epochs: int, steps: int) -> dict[str, Any]:
    """The position that a checkpoint states; the file may be untrusted."""
    said: Any = about.get("position")
    try:
        found = {name: kind(said[name]) for name, kind in _POSITION.items()}
        holds = 1 <= found["number"] <= epochs and 0 <= found["steps"] <= steps
    except (TypeError, ValueError, LookupError, OverflowError):
        holds = False
    if not holds:
        raise ValueError(
            f"the checkpoint is at {said}, which is nowhere in {epochs} epochs of {steps} steps. "
            "Move it away: its trainings then start again."
        )
    return found


@jax.jit
def signs_of(state: TrainState) -> dict[str, jax.Array]:
    """Which latent weights are not negative, by layer."""
    return {layer: w >= 0 for layer, w in latent_weights(state.params).items()}
