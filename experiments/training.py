"""Members that train together, from initial weights or a checkpoint to the last epoch."""

import contextlib
import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import checkpoint, weights
from experiments.configs import Config
from experiments.members import Member, programs
from experiments.records import display_name
from experiments.run_folder import RunFolder
from experiments.skipping import Skips, name_wrong
from experiments.steps import (
    StepMetrics,
    Steps,
    TrainState,
    Values,
    latent_weights,
    never_flipped,
)

SECONDS_BETWEEN_DRAWS = 0.25  # at least
SHARE_OF_DRAWING = 0.01  # of the time, at most
SECONDS_BETWEEN_CHECKPOINTS = 60.0


@dataclass(frozen=True)
class Together:
    """Members of one program in one compiled step.

    Attributes:
      steps: the compiled functions.
      members: they, the last ones repeated where they fill no whole step.
      count: how many of them are not repeated.
      varying: fields that differ from member to member.
    """

    steps: Steps
    members: Sequence[Member]
    count: int
    varying: Sequence[str]

    @property
    def values(self) -> Values:
        """(members,) numbers of each field that varies."""
        return self.steps.place(
            {name: [float(m.point[name]) for m in self.members] for name in self.varying}
        )

    @property
    def keys(self) -> list[Any]:
        """The members as JSON, to tell whose a checkpoint is."""
        return [[m.optimizer, dict(m.point), m.seed] for m in self.members]


class GivenUpError(ValueError):
    """The only training of a run makes no finite step any more."""


class Training:
    """Trains them and writes a row a member and epoch.

    `on_step(steps done, means so far)` and `on_epoch(epoch, means)` report progress.
    """

    def __init__(
        self,
        config: Config,
        together: Together,
        run: RunFolder,
        *,
        data: weights.Data,
        keep_weights: bool,
        on_step: Callable[[int, Mapping[str, float]], None],
        on_epoch: Callable[[int, Mapping[str, float]], None],
    ):
        """Trains nothing yet."""
        self.config, self.run_folder, self.data = config, run, data
        self.together, self.steps, self.values = together, together.steps, together.values
        self.on_step, self.on_epoch = on_step, on_epoch
        self.latest: tuple[checkpoint.Snapshot, int] | None = None  # and its epoch
        self.seeds = [m.seed for m in together.members]
        self.given_up: dict[int, str] = {}  # by the member's number: since when, and why
        self.only_one = sum(len(p.members) for p in programs(config)) == 1
        self.keeps_weights = keep_weights
        binary = together.steps.binary_weights
        self.keeps_latent = keep_weights and binary and self.seeds[0] == config.seeds[0]

    def run(self) -> None:
        """From the checkpoint, if it is of these members, to the last epoch.

        Raises:
          ValueError: if the run's only member is given up, as `Config.max_skipped` says.
        """
        state, done = self._start()
        try:
            self._train(state, done)
        except (KeyboardInterrupt, GivenUpError):
            self._save()
            raise
        self.run_folder.write_latent()
        self.run_folder.close_events()
        self.run_folder.checkpoint.unlink(missing_ok=True)

    def _train(self, state: TrainState, done: int) -> None:
        saved = time.monotonic()
        for epoch in range(done + 1, self.config.epochs + 1):
            signs = _signs(state)
            state, measured = self.train_epoch(state, epoch, first=epoch == done + 1)
            if epoch % self.config.evaluate_every == 0 or epoch == self.config.epochs:
                measured |= self.steps.evaluate(state)
            if self.keeps_latent:
                self._keep_latent("never_flipped", never_flipped(state.opt_state))
            if epoch == self.config.epochs:
                # Before the row that says the training is done: a kill must not come between.
                self._write_weights(state)
            self._write(epoch, measured, _changed(signs, _signs(state)))
            top1 = measured.get("test_top1", measured["train_top1"])
            self.on_epoch(epoch, self._shown({**measured, "top1": top1}))
            # In memory, since a step overwrites the state: an interrupt writes this one.
            self.latest = checkpoint.snapshot(state), epoch
            if time.monotonic() - saved > SECONDS_BETWEEN_CHECKPOINTS:
                self._save()
                saved = time.monotonic()

    def _write_weights(self, state: TrainState) -> None:
        if self.keeps_weights:
            for i, member in enumerate(self.together.members[: self.together.count]):
                path = weights.file_of(self.run_folder.path, member.optimizer, member.seed)
                of_member = jax.tree.map(lambda x, i=i: x[i], (state.params, state.statistics))
                weights.save(path, of_member, self.data)

    def _start(self) -> tuple[TrainState, int]:
        state = self.steps.init(self.seeds, self.values, self._start_weights())
        about = checkpoint.read_about(self.run_folder.checkpoint)
        if about is not None and about["members"] == self.together.keys:
            return checkpoint.restore(self.run_folder.checkpoint, state), about["epoch"]
        if self.keeps_latent:
            self._keep_latent("initial", latent_weights(state.params))
        return state, 0

    def _start_weights(self) -> Callable[[int, Any, Any], tuple[Any, Any]] | None:
        if (run := self.config.start) is None:
            return None

        def trained(i: int, params: Any, statistics: Any) -> tuple[Any, Any]:
            member = self.together.members[i]
            path = weights.find(run, member.optimizer, member.seed)
            return weights.load(path, params, statistics)

        return trained

    def _save(self) -> None:
        if self.latest is not None:
            self.run_folder.write_latent()
            leaves, epoch = self.latest
            about = {"members": self.together.keys, "epoch": epoch}
            checkpoint.save(self.run_folder.checkpoint, leaves, about)

    def train_epoch(
        self, state: TrainState, epoch: int, *, first: bool = False
    ) -> tuple[TrainState, dict[str, Any]]:
        """Trains one epoch; gives means over its steps, silent and never flipped at its end.

        The means are over the steps that were made, not over skipped ones. Of none, what layers
        did is 0, loss and top-1 are NaN; the loss also of members that were given up by the end.

        `first` of a process: what its first call takes, which compiles, is no part of images/s.
        """
        state, batches = self.steps.batches(state, self.seeds, epoch)
        sums: StepMetrics | None = None
        count, at_once = self.steps.steps_per_epoch, self.config.steps_per_call
        compiling = at_once if first and count > at_once else 0
        started = time.perf_counter()
        draw_at = started + SECONDS_BETWEEN_DRAWS
        with contextlib.closing(batches):  # an error must stop the threads that decode
            # A batch of resident images is told by its number: the first of a call stands for all.
            for done, batch in zip(
                range(0, count, at_once), itertools.islice(batches, 0, None, at_once), strict=True
            ):
                taken = min(at_once, count - done)
                step = done + taken
                state, sums = self.steps.train_step(state, sums, batch, self.values, count=taken)
                if step == compiling:
                    jax.block_until_ready((sums, self.steps.standing(state)))
                    started = time.perf_counter()
                if time.perf_counter() > draw_at:
                    jax.block_until_ready(sums)  # steps under way are no part of drawing
                    seconds = time.perf_counter() - started
                    speed = self._images(step - compiling) / max(seconds, 1e-9)
                    self._draw(state, sums, epoch, step, speed)
                    drawn = time.perf_counter()
                    drawing = drawn - started - seconds
                    draw_at = drawn + max(SECONDS_BETWEEN_DRAWS, drawing / SHARE_OF_DRAWING)
        means = self._means(state, sums, epoch, count)
        seconds = time.perf_counter() - started
        total = means["layers"].pop("total", {})
        return state, {
            **means,
            "images_per_second": self._images(count - compiling) / seconds,
            "seconds": seconds,
            **total,
        }

    def _draw(
        self, state: TrainState, sums: StepMetrics, epoch: int, step: int, speed: float
    ) -> None:
        means = self._means(state, sums, epoch, step)
        means |= {**means["layers"].get("total", {}), "top1": means["train_top1"]}
        shown = self._shown({**means, "images_per_second": speed})
        self.on_step((epoch - 1) * self.steps.steps_per_epoch + step, shown)

    def _means(
        self, state: TrainState, sums: StepMetrics | None, epoch: int, steps: int
    ) -> dict[str, Any]:
        on_host = jax.device_get((sums, self.steps.standing(state), state.skips))
        added, standing, skips = on_host
        self._give_up(state, skips, (epoch - 1) * self.steps.steps_per_epoch + steps)
        made = np.float32(steps) - added.skipped.astype(np.float32)
        means: StepMetrics = jax.tree.map(lambda x: x / np.maximum(made, 1), added)
        lost = skips.in_a_row >= self.config.max_skipped
        return {
            "loss": np.where(lost | (made == 0), np.float32(np.nan), means.loss),
            "train_top1": np.where(made == 0, np.float32(np.nan), means.top1),
            "skipped_steps": added.skipped,
            "layers": {layer: {**means.layers[layer], **standing[layer]} for layer in standing},
        }

    def _give_up(self, state: TrainState, skips: Skips, step: int) -> None:
        """Notes which members are given up, after `step` steps of the run."""
        for i, member in enumerate(self.together.members[: self.together.count]):
            if i in self.given_up or skips.in_a_row[i] < self.config.max_skipped:
                continue
            epoch, before = divmod(step - int(skips.in_a_row[i]), self.steps.steps_per_epoch)
            wrong = name_wrong(state.params, skips.wrong[i].tolist())
            self.given_up[i] = f"not finite from step {before + 1} of epoch {epoch + 1} on: {wrong}"
            if self.only_one:
                raise GivenUpError(
                    f"{display_name(member.optimizer)} with seed {member.seed} is given up after "
                    f"max_skipped={self.config.max_skipped} skipped steps in a row, "
                    f"{self.given_up[i]}. The epochs before are in {self.run_folder.path}. Lower "
                    "the learning rate, allow more with --max-skipped, or set JAX_DEBUG_NANS=True "
                    "to see where the first NaN is made."
                )

    def _images(self, steps: int) -> int:
        return steps * self.config.batch_size * self.together.count

    def _write(self, epoch: int, measured: dict[str, Any], changed: dict[str, Any]) -> None:
        layers = measured.pop("layers")
        for layer, metrics in layers.items():
            metrics["epoch_flip_ratio"] = changed[layer]
        if changed:
            measured["epoch_flip_ratio"] = changed["total"]
        for i, member in enumerate(self.together.members[: self.together.count]):
            row = {
                "optimizer": member.optimizer,
                "point": dict(member.point),
                "seed": member.seed,
                "epoch": epoch,
                "step": epoch * self.steps.steps_per_epoch,
                **_of_member(measured, i),
                **({"given_up": self.given_up[i]} if i in self.given_up else {}),
                "layers": {layer: _of_member(m, i) for layer, m in layers.items()},
            }
            self.run_folder.write_metrics(row)

    def _keep_latent(self, kind: str, layers: dict[str, jax.Array]) -> None:
        first = {layer: np.asarray(x[0]) for layer, x in layers.items()}
        self.run_folder.keep_latent(self.together.members[0].optimizer, kind, first)

    def _shown(self, metrics: Mapping[str, Any]) -> dict[str, float]:
        """Means over the members, for the progress bar; of skipped steps the sum."""
        count = self.together.count
        means = {
            k: float(np.mean(v if np.ndim(v) == 0 else np.asarray(v)[:count]))
            for k, v in metrics.items()
            if k != "layers"
        }
        skipped = means["skipped_steps"] * count
        return {**means, "skipped_steps": skipped, "given_up": float(len(self.given_up))}


def repeated(
    steps: Steps, members: Sequence[Member], size: int, varying: Sequence[str]
) -> Together:
    """`members` with the last one repeated, so that all steps of a program have one shape."""
    filled = [*members, *[members[-1]] * (size - len(members))]
    return Together(steps, filled, len(members), varying)


@jax.jit
def _signs(state: TrainState) -> dict[str, jax.Array]:
    return {layer: w >= 0 for layer, w in latent_weights(state.params).items()}


@jax.jit
def _changed(before: dict[str, jax.Array], after: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """Share of signs that differ, by layer and in total, for each member; {} without layers."""
    shares, size = {}, 0
    different = jnp.zeros(())
    for layer in after:
        members = len(after[layer])
        changed = (before[layer] != after[layer]).reshape(members, -1)
        shares[layer] = jnp.mean(changed, axis=1, dtype=jnp.float32)
        different = different + jnp.sum(changed, axis=1, dtype=jnp.float32)
        size += changed.shape[1]
    return {**shares, "total": different / size} if shares else {}


def _of_member(metrics: Mapping[str, Any], i: int) -> dict[str, float]:
    return {k: float(v if np.ndim(v) == 0 else np.asarray(v)[i]) for k, v in metrics.items()}
