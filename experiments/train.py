"""Trains binary networks with several optimizers and compares them, or sweeps their settings.

python -m experiments.train                              # digits, under a minute
python -m experiments.train cifar10-resnet20-short       # a recipe of experiments/configs
python -m experiments.train gamma --out DIR              # a study; the same command goes on with it
python -m experiments.train digits --grids "optimizer=sgd learning_rate=0.03,0.1,0.3"
python -m experiments.train --help
"""

import os
import shlex
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import tyro
from rich.console import Console

from experiments import checkpoint, figures, summary, weights
from experiments.allocator import keep_freed_memory
from experiments.choices import choose
from experiments.compilation_cache import keep_compiled_programs
from experiments.configs import RECIPES, Config
from experiments.data import Dataset, StreamedDataset, load, load_streamed
from experiments.devices import devices_for, members_that_fit, one_device_a_core
from experiments.feeds import feed_of
from experiments.members import Member, Program, chunks, programs
from experiments.networks import Network
from experiments.optimizers import OPTIMIZERS, make_optimizer
from experiments.progress import Bars
from experiments.run_folder import RunFolder, member_of
from experiments.steps import Steps
from experiments.trained import Trained, load_teacher
from experiments.training import Together, Training, repeated

INTERRUPTED = 130  # exit status, as a shell reports Ctrl-C


def train(
    config: Config, console: Console | None = None, command: str | None = None
) -> tuple[Path, bool]:
    """Runs a config and writes its run folder, or goes on with one that was stopped.

    Args:
      config: what to run.
      console: where to show progress; None for standard output.
      command: the command line to note in versions.json.

    Returns:
      The run folder, and whether the run came to its end; Ctrl-C ends it early with everything
      measured so far written.

    Raises:
      ValueError: if the config can't be run; nothing is written then.
    """
    console = console or Console()
    planned = programs(config)
    for program in planned:
        choose("optimizer", program.optimizer, OPTIMIZERS)
    dataset = _load(config)
    _check_batch(config, dataset)
    classes, shape = len(dataset.classes), dataset.image_shape
    networks = {
        name: Network(name, classes, shape, binary=config.binary, dtype=config.dtype)
        for name in dict.fromkeys(p.config.network for p in planned)
    }
    data = weights.data_for(dataset)
    teacher = None if config.teacher is None else load_teacher(config.teacher, data)
    for program in planned:  # before the folder: a bad hyperparameter leaves nothing behind
        for member in program.members:
            if config.start is not None:
                start = weights.find(config.start, member.optimizer, member.seed)
                weights.check_same_data(config.start, weights.data_of(start), data)
                weights.load(start, *networks[program.config.network].shapes)
            at_point = program.config.at(member.point)
            make_optimizer(program.optimizer, at_point, 1)
    counts = {"train_images": dataset.train_count, "test_images": dataset.test_count}
    run = RunFolder(config, command, {**counts, "classes": dataset.classes})
    console.print(f"{dataset!r}\nwriting to {run.path}", highlight=False, soft_wrap=True)
    finished = False
    try:
        _Run(config, planned, networks, dataset, teacher, run, console).train()
        finished = True
    except KeyboardInterrupt:
        console.print(
            "interrupted; writing what was measured so far. The same command with "
            f"--out {run.path} goes on",
            soft_wrap=True,
        )
    finally:
        run.close()
    return run.path, finished


class _Run:
    """All members of a config that are not trained yet."""

    def __init__(
        self,
        config: Config,
        planned: Sequence[Program],
        networks: Mapping[str, Network],
        dataset: Dataset | StreamedDataset,
        teacher: Trained | None,
        run: RunFolder,
        console: Console,
    ):
        self.config, self.run_folder, self.console = config, run, console
        self.planned, self.teacher = planned, teacher
        self.feed, self.data = feed_of(dataset, config), weights.data_for(dataset)
        self.done = {member_of(r).key for r in run.rows() if r["epoch"] == config.epochs}
        self.count = sum(len(p.members) for p in planned)
        # Several points an optimizer: a sweep.
        self.sweep = self.count > len(config.seeds) * len({p.optimizer for p in planned})
        self.networks = networks
        self.steps: dict[int, Steps] = {}

    def train(self) -> None:
        if self.done:
            self.console.print(f"{len(self.done)} of {self.count} trainings are done")
        if len(self.done) == self.count:
            return
        streamed = self.config.image_size is not None  # each with an order of its own
        size = 1 if streamed else self.config.members_at_once or self._fitting()
        # Cut before those that are done are left out: so the one that was stopped comes first.
        left = [
            (program, members)
            for program, chunk in chunks(self.planned, size)
            if (members := [m for m in chunk if m.key not in self.done])
        ]
        self._go_on(self._together(*left[0], size))
        with Bars(self.console, self.sweep, done=len(self.done), count=self.count) as bars:
            for program, members in left:
                together = self._together(program, members, size)
                with bars.training(together, self.config.epochs) as (on_step, on_epoch):
                    Training(
                        self.config,
                        together,
                        self.run_folder,
                        data=self.data,
                        keep_weights=not self.sweep,
                        on_step=on_step,
                        on_epoch=on_epoch,
                    ).run()

    def _go_on(self, first: Together) -> None:
        """Leaves of what was written what is done, and the epochs that a checkpoint goes on from.

        So no epoch is there twice. Rows that go are kept in metrics.dropped.jsonl.
        """
        rows = self.run_folder.rows()
        about = checkpoint.read_about(self.run_folder.checkpoint)
        if not rows and about is None:
            return
        started = {m.key for m in first.members}
        epochs = {(key, r["epoch"]) for r in rows if (key := member_of(r).key) in started}
        reached = about["epoch"] if about and about["members"] == first.keys else 0
        if any((key, e) not in epochs for key in started for e in range(1, reached + 1)):
            reached = 0
        if about and not reached:
            self.run_folder.checkpoint.unlink()
            self.console.print(
                "the checkpoint is not of the members that come next, with all of their epochs in "
                "metrics.jsonl (was --members-at-once or the number of devices another?)"
            )
        kept: list[Any] = []
        dropped: list[Any] = []
        for row in rows:
            key = member_of(row).key
            keep = key in self.done or (key in started and row["epoch"] <= reached)
            (kept if keep else dropped).append(row)
        if rows:
            self.run_folder.note_continued()
            self.console.print(
                f"going on after epoch {reached} of {self.config.epochs} of those in training; "
                f"{len(dropped)} rows are measured again"
            )
        self.run_folder.keep_rows(kept, dropped)

    def _together(self, program: Program, members: Sequence[Member], size: int) -> Together:
        size = min(size, len(program.members))
        if id(program) not in self.steps:  # compiled once a program
            devices = devices_for(size, jax.devices())
            self.steps[id(program)] = self._steps(program, devices)
        return repeated(self.steps[id(program)], members, size, program.varying)

    def _steps(self, program: Program, devices: Sequence[jax.Device]) -> Steps:
        network = self.networks[program.config.network]
        return Steps(
            network,
            program.optimizer,
            program.config,
            self.feed,
            devices=devices,
            teacher=self.teacher,
        )

    def _fitting(self) -> int:
        program = self.planned[0]
        steps = self._steps(program, jax.devices()[:1])
        values = steps.place({name: [0.0] for name in program.varying})
        return members_that_fit(steps, values, jax.devices())


def _load(config: Config) -> Dataset | StreamedDataset:
    chosen: dict[str, Any] = {
        "data_dir": config.data_dir,
        "train_images": config.train_images,
        "held_out": config.held_out,
    }
    if config.image_size is None:
        return load(config.data, **chosen)
    return load_streamed(
        config.data, image_size=config.image_size, workers=config.workers, **chosen
    )


def _check_batch(config: Config, dataset: Dataset | StreamedDataset) -> None:
    images = dataset.train_count
    if images < config.batch_size:
        raise ValueError(
            f"batch_size={config.batch_size} is more than the {images} training images of "
            f"{dataset.name}: not one step would be made. Use a smaller --batch-size."
        )
    height, width = dataset.image_shape[:2]
    if min(height, width) < 4:
        raise ValueError(
            f"images of {dataset.name} are {height}x{width} pixels; the networks halve the "
            "resolution and need at least 4x4. Use larger images."
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    given = sys.argv[1:] if arguments is None else arguments
    arguments = list(given)
    named = bool(arguments) and not arguments[0].startswith("-")
    console = Console(highlight=False)
    try:
        recipe = choose("recipe", arguments.pop(0), RECIPES) if named else RECIPES["digits"]
        config = tyro.cli(
            Config,
            args=arguments,
            default=recipe,
            prog="python -m experiments.train [RECIPE]",
            description=(
                "Trains a binary network with several optimizers and compares them, or sweeps "
                "their settings. Compiled programs are kept in the user's cache folder; the "
                "environment variable JAX_COMPILATION_CACHE_DIR names another one, or none if it "
                f"is empty. RECIPE is one of {', '.join(RECIPES)}; every field of it can be "
                "changed:"
            ),
        )
        command = shlex.join(["python", "-m", "experiments.train", *given])
        if config.members_at_once is None and config.image_size is None:
            one_device_a_core()
        path, finished = train(config, console, command)
        if not (path / "metrics.jsonl").stat().st_size:
            return INTERRUPTED  # before the first epoch: nothing to show
        drawn = figures.draw(path)  # first, since the summary shows them
        written = summary.write_summary(path)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    summary.print_table(written, console)
    for file in (*drawn, path / "summary.md"):
        console.print(str(file), soft_wrap=True)
    return 0 if finished else INTERRUPTED


if __name__ == "__main__":
    # A shell starts background jobs with Ctrl-C ignored; `kill -INT` must end them all the same.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    keep_freed_memory()
    if (reason := keep_compiled_programs()) is not None:
        print(reason, file=sys.stderr)
    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # Not sys.exit: XLA crashes in its exit handlers if a compilation was interrupted.
    os._exit(status)
