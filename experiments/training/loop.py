"""Members that train together, from initial weights or a checkpoint to the last epoch."""

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from experiments.config import Config
from experiments.optimizers import display_name
from experiments.process import distributed
from experiments.process.signals import Signals, Stopped
from experiments.run import predictions, weights
from experiments.run.folder import RunFolder
from experiments.run.predictions import Predictions
from experiments.sweep.members import programs
from experiments.training import position
from experiments.training.dispatch_limit import DispatchLimit
from experiments.training.position import Epoch, signs_of
from experiments.training.skipping import Skips, name_wrong
from experiments.training.start import find_start
from experiments.training.step import (
    StepMetrics,
    TrainState,
    latent_weights,
    never_flipped,
    take_member,
)
from experiments.training.step_group import StepGroup

SHARE_OF_DRAWING = 0.01  # of the time, at most; but
LONGEST_UNDRAWN = 25.0  # seconds


class Report(Protocol):
    """What a training reports its progress to."""

    @property
    def due(self) -> bool:
        """Whether `step` is wanted now."""

    def step(self, step: int, numbers: Mapping[str, float]) -> None:
        """So many steps are made, with these means of the epoch so far."""

    def evaluating(self) -> None:
        """Called between two batches of an evaluation."""

    def epoch(self, epoch: int, numbers: Mapping[str, float]) -> None:
        """So many epochs are done, with these means of the last one."""


class GivenUpError(ValueError):
    """The only training of a run makes no more finite steps."""


class Training:
    """Trains members together and writes a row per member and epoch.

    In a sweep it keeps the weights of the first seed's points, of which the best ones are left in
    the end (see `experiments.run.weights`). `on_fault(layer, what is wrong, remedy)` reports what
    `ovsw.inspect` finds in the first epoch.
    """

    def __init__(
        self,
        config: Config,
        group: StepGroup,
        run: RunFolder,
        *,
        data: weights.Data,
        sweep: bool,
        report: Report,
        signals: Signals,
        on_fault: Callable[[str, str, str], None] = lambda layer, what, remedy: None,
    ):
        self.config, self.run_folder, self.data = config, run, data
        self.group, self.steps, self.values = group, group.steps, group.values
        self.report, self.signals = report, signals
        self.on_fault, self.inspects = on_fault, config.binary != "none"
        self.seeds = [m.seed for m in group.members]
        self.given_up: dict[int, str] = {}  # by the member's number: since when, and why
        self.only_one = sum(len(p.members) for p in programs(config)) == 1
        self.sweep = sweep
        binary = group.steps.binary_weights
        self.keeps_latent = not sweep and binary and self.seeds[0] == config.seeds[0]
        self.compiled = False
        self.saved = time.monotonic()
        self.restored: tuple[TrainState, Epoch] | None = None

    def restore(self, report: Callable[[str], None]) -> None:
        """Resumes from the newest checkpoint, if there is one; `report` is called for damaged ones.

        Raises:
          ValueError: if it is of another config, network or flip state.
        """
        self.restored = position.restore(
            self.run_folder.checkpoints, self.group, self.config, self._initial(), report
        )

    @property
    def epochs_done(self) -> int:
        """Epochs before the one that `restore` resumes."""
        return 0 if self.restored is None else self.restored[1].number - 1

    @property
    def steps_done(self) -> int:
        """Steps of that epoch that are done."""
        return 0 if self.restored is None else self.restored[1].steps

    def run(self) -> None:
        """Trains from the start, or from where `restore` resumed, to the last epoch.

        Raises:
          Stopped: at a signal.
          ValueError: if the run's only member is given up, see `Config.max_skipped`.
        """
        with self.signals.waiting():
            self._train(*(self.restored or self.begin()))
            self.run_folder.finish_events()
            distributed.wait("the last rows")
            self.run_folder.checkpoints.remove()

    def begin(self) -> tuple[TrainState, Epoch]:
        """The initial state and the first epoch."""
        state = self._initial()
        if self.keeps_latent:
            self._keep_latent("initial", latent_weights(state.params))
            self.run_folder.write_latent()
        self._write_histograms(state, 0)
        self._inspect(state, 1)
        return position.begin(self.group, state, 1)

    def _train(self, state: TrainState, epoch: Epoch) -> None:
        while True:
            state, measured = self.train_epoch(state, epoch)
            last = epoch.number == self.config.epochs
            if epoch.number % self.config.evaluate_every == 0 or last:
                with self._kept(state, epoch):
                    found = self.steps.evaluate(state, partial(self._between_batches, state, epoch))
                measured |= found.metrics
                self._write_histograms(state, epoch.number)
            if self.keeps_latent:
                self._keep_latent("never_flipped", never_flipped(state.opt_state))
            if last:
                # Before the rows that say the training is done: a kill must not come between.
                self._write_weights(state)
                self._write_predictions(found.predictions)
                self.run_folder.write_latent()
            for layer, measures in self._inspect(state, epoch.number).items():
                measured["layers"].get(layer, {}).update(measures)
            changed = self.steps.on_host(_changed(epoch.signs, signs_of(state)))
            self._write(epoch.number, measured, changed)
            top1 = measured.get("test_top1", measured["train_top1"])
            self.report.epoch(epoch.number, self._shown({**measured, "top1": top1}))
            if last:
                return
            state, epoch = position.begin(self.group, state, epoch.number + 1)

    def _write_weights(self, state: TrainState) -> None:
        first = self.config.seeds[0]
        if self.sweep and first not in self.seeds:
            return
        trained = self.steps.on_host((state.params, state.statistics))
        for i, file in self._files(weights.file_of):
            member = self.group.members[i]
            if not self.sweep:
                weights.save(file, take_member(trained, i), self.data)
            elif member.seed == first:
                file = weights.file_of_point(self.run_folder.path, member)
                weights.save(file, take_member(trained, i), self.data, member.point)

    def _write_predictions(self, found: Sequence[Predictions]) -> None:
        if not self.sweep:
            for i, file in self._files(predictions.file_of):
                predictions.save(file, found[i])

    def _write_histograms(self, state: TrainState, epoch: int) -> None:
        if not self.sweep and self.steps.binary_weights:
            counts = self.steps.on_host(self.steps.histograms(state))
            step = epoch * self.steps.steps_per_epoch
            for i, member in enumerate(self.group.members[: self.group.count]):
                self.run_folder.write_histograms(member, epoch, step, take_member(counts, i))

    def _inspect(self, state: TrainState, epoch: int) -> dict[str, dict[str, Any]]:
        """Measures of each layer and member; in the first epoch faults are reported."""
        if not self.inspects:
            return {}
        try:
            found = self.steps.inspect(state)
        except (ValueError, TypeError) as error:  # training is possible without
            self.inspects = False
            self.on_fault("layers", f"can't be inspected: {error}", "")
            return {}
        for i in range(self.group.count if epoch == 1 else 0):
            for layer, faults in take_member(found, i).faults.items():
                for fault in faults:
                    self.on_fault(layer, *fault)
        return found.metrics()

    def _files(self, file_of: Callable[[Path, str, int], Path]) -> Iterator[tuple[int, Path]]:
        """Number and file of each member; none in a process that does not write."""
        members = self.group.members[: self.group.count] if distributed.is_first() else ()
        for i, member in enumerate(members):
            yield i, file_of(self.run_folder.path, member.optimizer, member.seed)

    def _initial(self) -> TrainState:
        return self.steps.init(self.seeds, self.values, self._start_weights())

    def _start_weights(self) -> Callable[[int, Any, Any], tuple[Any, Any]] | None:
        if (run := self.config.start) is None:
            return None

        def trained(i: int, params: Any, statistics: Any) -> tuple[Any, Any]:
            start = find_start(run, self.group.members[i], self.steps.network, self.data)
            return start.load(params, statistics)

        return trained

    def _between_steps(
        self, state: TrainState, epoch: Epoch, limit: DispatchLimit, draw: bool
    ) -> bool:
        """Between two steps: stops if a signal asked for it, saves if it is time.

        Processes that train together decide together: a signal to one stops all; the first one
        decides when to save and to draw.

        Returns:
          Whether to draw.
        """
        save = time.monotonic() - self.saved > self.config.checkpoint_seconds
        wanted = distributed.gather([self.signals.asked or 0, save, draw, limit.allowed])
        stop = int(wanted[:, 0].max())
        save, draw, limit.allowed = bool(wanted[0, 1]), bool(wanted[0, 2]), int(wanted[0, 3])
        if stop or save:
            self._save(state, epoch)
        if stop:
            self.run_folder.checkpoints.wait()
            self.signals.asked = None
            raise Stopped(stop)
        return draw

    def _between_batches(self, state: TrainState, epoch: Epoch) -> None:
        """The same between batches of an evaluation, which processes do not reach together."""
        self.report.evaluating()
        if distributed.alone():
            self._between_steps(state, epoch, DispatchLimit(), False)

    def _save(self, state: TrainState, epoch: Epoch) -> None:
        position.save(self.run_folder.checkpoints, self.group, self.config, state, epoch)
        self.saved = time.monotonic()

    def train_epoch(self, state: TrainState, epoch: Epoch) -> tuple[TrainState, dict[str, Any]]:
        """Trains the rest of an epoch; returns the state and the means over all of its steps.

        The means leave out skipped steps. If all were skipped, layer metrics are 0, and loss and
        top-1 are NaN; the loss is NaN for given-up members too. images/s leave out the first call,
        which compiles.
        """
        count, at_once = self.steps.steps_per_epoch, self.config.steps_per_call
        limit, draw_at = DispatchLimit(), 0.0
        timed = epoch.images, epoch.seconds
        started = time.perf_counter() - epoch.seconds
        with contextlib.closing(epoch.batches):  # an error must stop the threads that decode
            while epoch.steps < count:
                taken = min(at_once, count - epoch.steps)
                batch = self._next_batch(state, epoch, taken)
                state, epoch.sums = self.steps.train_step(
                    state, epoch.sums, batch, self.values, count=taken
                )
                epoch.steps += taken
                epoch.images += taken * self.config.batch_size * self.group.count
                if not limit.caught_up(epoch.sums):
                    continue
                epoch.seconds = time.perf_counter() - started
                draw = draw_at < epoch.seconds and epoch.steps < count and self.report.due
                if self._between_steps(state, epoch, limit, draw):
                    drawing = self._draw(state, epoch)
                    draw_at = epoch.seconds + min(drawing / SHARE_OF_DRAWING, LONGEST_UNDRAWN)
                if not self.compiled and epoch.steps < count:
                    epoch.images, epoch.seconds = timed
                    started = time.perf_counter() - epoch.seconds
                self.compiled = True
        means = self._means(state, epoch)
        epoch.seconds = time.perf_counter() - started
        total = means["layers"].pop("total", {})
        speed = epoch.images / epoch.seconds
        return state, {**means, "images_per_second": speed, "seconds": epoch.seconds, **total}

    def _next_batch(self, state: TrainState, epoch: Epoch, taken: int) -> Any:
        """The next batch; with several steps in a call, the first of them stands for all."""
        with self._kept(state, epoch):
            first, *_ = itertools.islice(epoch.batches, taken)
            return first

    @contextlib.contextmanager
    def _kept(self, state: TrainState, epoch: Epoch) -> Iterator[None]:
        """Saves a checkpoint if an image can't be read."""
        try:
            yield
        except ValueError as error:
            self.run_folder.forget_images()
            if not distributed.alone():
                raise
            self._save(state, epoch)
            self.run_folder.checkpoints.wait()
            raise ValueError(
                f"{error}. The training so far is saved: with the original images the same "
                f"command with --out {self.run_folder.path} resumes it."
            ) from error

    def _draw(self, state: TrainState, epoch: Epoch) -> float:
        """Shows the metrics so far; returns the seconds that it took."""
        started = time.perf_counter()
        means = self._means(state, epoch)
        means |= {**means["layers"].get("total", {}), "top1": means["train_top1"]}
        # Of the first call, which compiles, there is no speed.
        speed = epoch.images / epoch.seconds if self.compiled and epoch.seconds else 0.0
        before = (epoch.number - 1) * self.steps.steps_per_epoch
        self.report.step(before + epoch.steps, self._shown({**means, "images_per_second": speed}))
        return time.perf_counter() - started

    def _means(self, state: TrainState, epoch: Epoch) -> dict[str, Any]:
        measured = epoch.sums, self.steps.standing(state), state.skips
        added, standing_now, skips = self.steps.on_host(measured)
        self._give_up(state, epoch, skips)
        made = np.float32(epoch.steps) - added.skipped.astype(np.float32)
        means: StepMetrics = jax.tree.map(lambda x: x / np.maximum(made, 1), added)
        lost = skips.in_a_row >= self.config.max_skipped
        return {
            "loss": np.where(lost | (made == 0), np.float32(np.nan), means.loss),
            "train_top1": np.where(made == 0, np.float32(np.nan), means.top1),
            "skipped_steps": added.skipped,
            "layers": {
                layer: {**means.layers[layer], **now} for layer, now in standing_now.items()
            },
        }

    def _give_up(self, state: TrainState, epoch: Epoch, skips: Skips) -> None:
        """Notes which members are given up."""
        step = (epoch.number - 1) * self.steps.steps_per_epoch + epoch.steps
        for i, member in enumerate(self.group.members[: self.group.count]):
            if i in self.given_up or skips.in_a_row[i] < self.config.max_skipped:
                continue
            number, before = divmod(step - int(skips.in_a_row[i]), self.steps.steps_per_epoch)
            wrong = name_wrong(state.params, skips.wrong[i].tolist())
            self.given_up[i] = (
                f"not finite from step {before + 1} of epoch {number + 1} on: {wrong}"
            )
            if self.only_one:
                self._save(state, epoch)
                raise GivenUpError(
                    f"{display_name(member.optimizer)} with seed {member.seed} is given up after "
                    f"max_skipped={self.config.max_skipped} skipped steps in a row, "
                    f"{self.given_up[i]}. The epochs before are in {self.run_folder.path}. Lower "
                    "the learning rate, allow more with --max-skipped, or set JAX_DEBUG_NANS=True "
                    "to see where the first NaN is made."
                )

    def _write(self, epoch: int, measured: dict[str, Any], changed: dict[str, Any]) -> None:
        layers = measured.pop("layers")
        for layer, metrics in layers.items():
            metrics["epoch_flip_ratio"] = changed[layer]
        if changed:
            measured["epoch_flip_ratio"] = changed["total"]
        rows = [
            {
                "optimizer": member.optimizer,
                "point": dict(member.point),
                "seed": member.seed,
                "epoch": epoch,
                "step": epoch * self.steps.steps_per_epoch,
                **_of_member(measured, i),
                **({"given_up": self.given_up[i]} if i in self.given_up else {}),
                "layers": {layer: _of_member(m, i) for layer, m in layers.items()},
            }
            for i, member in enumerate(self.group.members[: self.group.count])
        ]
        self.run_folder.write_metrics(rows)

    def _keep_latent(self, kind: str, layers: dict[str, jax.Array]) -> None:
        on_host = self.steps.on_host(layers)
        first = {layer: weights.storable(x[0]) for layer, x in on_host.items()}
        self.run_folder.keep_latent(self.group.members[0].optimizer, kind, first)

    def _shown(self, metrics: Mapping[str, Any]) -> dict[str, float]:
        """Means over the members, for the progress bar; skipped steps are summed."""
        count = self.group.count
        means = {
            k: float(np.mean(v if np.ndim(v) == 0 else np.asarray(v)[:count]))
            for k, v in metrics.items()
            if k != "layers"
        }
        skipped = means["skipped_steps"] * count
        return {**means, "skipped_steps": skipped, "given_up": float(len(self.given_up))}


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
