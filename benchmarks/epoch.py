"""Time of an epoch of training as a ratio to its bare steps: what the loop around them costs.

    python -m benchmarks.epoch [RECIPE] [--train-images 5000] [--repeats 5] [--json-file FILE]

*Bare steps* are as many calls of the compiled step as an epoch has, on the same images, with
nothing between them. *An epoch* is the training loop's: a new order of the images, sums of all
metrics, a progress bar on a terminal, and what a row of metrics.jsonl tells. *Steps in one call*
are `--steps-per-call` of them. Repeats are interleaved, and the table gives medians of the ratios
within a repeat, with their quartiles. Below the line is what happens between epochs, and the
choice and augmentation of the images, which is a part of the steps.
"""

import contextlib
import dataclasses
import io
import itertools
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import tyro
from rich.console import Console

from benchmarks import measuring
from experiments import data
from experiments.config import Config
from experiments.config.choices import choose
from experiments.data.batches import feed_of
from experiments.process.allocator import keep_freed_memory
from experiments.process.signals import Signals
from experiments.recipes import RECIPES
from experiments.report.progress import Bars
from experiments.run import weights
from experiments.run.folder import RunFolder
from experiments.sweep.members import programs
from experiments.training import position
from experiments.training.loop import Training
from experiments.training.networks import Network
from experiments.training.step import Steps
from experiments.training.step_group import filled_group

BARE = "bare steps"
EPOCH = "an epoch"


def main(
    recipe: tyro.conf.Positional[str] = "digits",
    train_images: int | None = None,
    network: str | None = None,
    batch_size: int | None = None,
    steps_per_call: tuple[int, ...] = (),
    repeats: int = 5,
    quick: bool = False,
    json_file: Path | None = None,
) -> None:
    """Prints the table, for the last optimizer of a recipe and one seed.

    Args:
      recipe: of experiments/recipes.
      train_images: train on this many; None is what the recipe says.
      network: in place of the recipe's.
      batch_size: in place of the recipe's.
      steps_per_call: also measure so many steps in one call; 0 is all of an epoch.
      repeats: measurements of each way.
      quick: two repeats on 256 images: to see that it runs.
      json_file: also write all measurements there.
    """
    measuring.check_positive(repeats=repeats)
    keep_freed_memory()
    given = {"train_images": train_images, "network": network, "batch_size": batch_size}
    if quick:
        given["train_images"], repeats = 256, 2
    config = choose("recipe", recipe, RECIPES).at({k: v for k, v in given.items() if v is not None})
    with _Job(config) as job:
        counts = {n or job.steps.steps_per_epoch: None for n in steps_per_call}
        ways = {BARE: job.bare, EPOCH: job.epoch}
        ways |= {f"{n} steps in one call": partial(job.bare, n) for n in counts}
        compiled = {name: run() for name, run in ways.items()}
        measured = measuring.interleaved(ways, repeats)
        beside = measuring.interleaved(job.beside(), repeats)
    _print(job, compiled, measured, beside)
    measuring.write_json(
        json_file,
        benchmark="epoch",
        recipe=recipe,
        **{k: getattr(config, k) for k in given},
        steps=job.steps.steps_per_epoch,
        first_seconds=compiled,
        seconds=measured,
        seconds_between_epochs=beside,
    )


def _print(
    job: "_Job",
    compiled: dict[str, float],
    measured: dict[str, list[float]],
    beside: dict[str, list[float]],
) -> None:
    steps = job.steps.steps_per_epoch
    print(f"{job.config.network}, {steps} steps of {job.config.batch_size} images")
    print(measuring.describe(measuring.environment()))
    everything = {**measured, **beside}
    rows = [
        (
            name,
            f"{1e3 * measuring.median(seconds):.1f}",
            measuring.spread(everything, name, BARE),
            f"{compiled[name]:.1f}" if name in compiled else "",
        )
        for name, seconds in everything.items()
    ]
    measuring.print_table(("", "ms", "ratio to bare steps", "first time, s"), rows)


class _Job(contextlib.AbstractContextManager["_Job"]):
    """A training of one member, with its run folder and progress bar."""

    def __init__(self, config: Config):
        self._closing = contextlib.ExitStack()
        folder = self._closing.enter_context(tempfile.TemporaryDirectory())
        self.config = config.at({"seeds": (0,), "grids": (), "out": Path(folder) / "run"})
        self._dataset = data.load(
            config.data,
            data_dir=config.data_dir,
            train_images=config.train_images,
            held_out=config.held_out,
        )
        network = Network(
            config.network,
            len(self._dataset.classes),
            self._dataset.image_shape,
            binary=config.binary,
            dtype=config.dtype,
        )
        self._feed = feed_of(self._dataset, self.config)
        program = programs(self.config)[-1]
        self.steps = Steps(network, program.optimizer, self.config, self._feed)
        self._training = self._open(program.members)
        self._state = self.steps.init([0])
        self._epoch = 0

    def __exit__(self, *raised: Any) -> None:
        self._closing.close()

    def bare(self, count: int = 1) -> float:
        """Seconds of an epoch's steps, `count` in a call."""
        state, batches = self.steps.batches(self._state, [0], 1)
        calls = [
            (batch, min(count, self.steps.steps_per_epoch - done))
            for done, batch in enumerate(batches)
            if done % count == 0
        ]
        state, sums = self._ready(state), None
        started = time.perf_counter()
        for batch, taken in calls:
            state, sums = self.steps.train_step(state, sums, batch, count=taken)
        self._state = self._ready(state)
        return time.perf_counter() - started

    def epoch(self) -> float:
        """Seconds of the training loop's epoch."""
        self._epoch += 1
        started = time.perf_counter()
        state, epoch = position.begin(self._together, self._state, self._epoch)
        state, _ = self._training.train_epoch(state, epoch)
        self._state = self._ready(state)
        return time.perf_counter() - started

    def beside(self) -> dict[str, Callable[[], float]]:
        """What is measured by itself."""
        state, batches = self.steps.batches(self._state, [0], 1)
        self._state, batch = state, next(batches)

        @partial(jax.jit, static_argnums=0)
        def images(augment: bool, key: jax.Array, order: jax.Array, resident: Any) -> Any:
            feed = feed_of(self._dataset, self.config.at({"augment": augment}))
            return feed.images(key, (order, 0), resident)

        def fed(augment: bool) -> None:
            for _ in range(self.steps.steps_per_epoch):
                key, order = self._state.key[0], batch[0][0]
                self._ready(images(augment, key, order, self._feed.resident))

        begun = position.begin(self._together, self._state, 1)[1]
        numbers = itertools.count(1)

        def save() -> None:
            epoch = dataclasses.replace(begun, number=next(numbers))
            checkpoints = self._run.checkpoints
            position.save(checkpoints, self._together, self.config, self._state, epoch)

        ways: dict[str, Callable[[], Any]] = {
            "evaluation on the test images": lambda: self.steps.evaluate(self._state),
            "a checkpoint, until training resumes": save,
            "the batches alone": partial(fed, False),
            "the batches alone, cropped and flipped": partial(fed, True),
        }
        for run in ways.values():
            run()
        return {name: partial(_seconds, run) for name, run in ways.items()}

    def _open(self, members: Sequence[Any]) -> Training:
        closing = self._closing
        self._run = closing.enter_context(RunFolder(self.config))
        console = Console(file=io.StringIO(), force_terminal=True, width=100)
        bars = closing.enter_context(Bars(console, self.config, [(0, 1)], sweep=False))
        self._together = together = filled_group(self.steps, members, 1, ())
        closing.enter_context(bars.training(together))
        return Training(
            self.config,
            together,
            self._run,
            data=weights.data_for(self._dataset),
            sweep=True,  # which writes less
            report=bars,
            signals=Signals(),
        )

    @staticmethod
    def _ready(tree: Any) -> Any:
        return jax.block_until_ready(tree)


def _seconds(run: Callable[[], Any]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


if __name__ == "__main__":
    tyro.cli(main)
