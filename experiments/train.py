"""Trains binary networks with several optimizers and compares them, or sweeps their settings.

python -m experiments.train                              # digits, under a minute
python -m experiments.train cifar10-resnet20-short       # a recipe of experiments/recipes
python -m experiments.train gamma --out DIR              # a study; the same command resumes it
python -m experiments.train digits --grids "optimizer=sgd learning_rate=0.03,0.1,0.3"
python -m experiments.train cifar10-resnet20 --compile-for v5e:2x2   # what it needs; runs nothing
python -m experiments.train --help
"""

import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import jax
import tyro
from rich.console import Console

from experiments import figures
from experiments.accelerators import platform_of
from experiments.config import Config
from experiments.config.choices import choose
from experiments.data import Dataset, StreamedDataset, load, load_streamed
from experiments.data.batches import feed_of
from experiments.data.sizes import Sizes, sizes_of
from experiments.estimate.command import estimate
from experiments.optimizers import OPTIMIZERS
from experiments.process import distributed
from experiments.process.allocator import keep_freed_memory
from experiments.process.compile_cache import keep_compiled_programs
from experiments.process.safe_stdout import never_fail
from experiments.process.signals import Signals, Stopped
from experiments.recipes import ABOUT, RECIPES
from experiments.report import html, summary
from experiments.report.best import keep_best_weights
from experiments.report.progress import Bars
from experiments.run import examples, weights
from experiments.run.folder import RunFolder
from experiments.run.read_only import ReadOnlyRunFolder
from experiments.sweep.members import Member, Program, chunks, programs
from experiments.training.devices import layout_for, members_that_fit, one_device_a_core
from experiments.training.loop import Training
from experiments.training.make_optimizer import make_optimizer
from experiments.training.networks import Network, networks_of
from experiments.training.resume import Unfinished
from experiments.training.sharding import Layout, MembersApart
from experiments.training.start import find_start
from experiments.training.step import Steps
from experiments.training.step_group import StepGroup, filled_group
from experiments.training.trained import Trained, load_teacher


class Ended(NamedTuple):
    """How a run ended.

    Attributes:
      path: its folder.
      finished: whether it was not stopped.
      status: exit status: 0, or that of the signal that stopped it, as a shell reports it.
    """

    path: Path
    finished: bool
    status: int


def train(
    config: Config,
    console: Console | None = None,
    command: str | None = None,
    signals: Signals | None = None,
) -> Ended:
    """Runs a config and writes its run folder, or resumes a stopped run.

    Args:
      config: what to run.
      console: where to show progress; None for standard output.
      command: the command line to note in versions.json.
      signals: what asks the run to stop; None for Ctrl-C alone, at once.

    Returns:
      The run folder, and whether the run finished. Ctrl-C and SIGTERM end it early, with a
      checkpoint and everything measured so far written.

    Raises:
      ValueError: if the config can't be run, and nothing is written; or if data or numbers go wrong
        while it runs, and the same config resumes.
      OSError: if files can't be written or read while it runs; the same config resumes.
    """
    console = console or Console(markup=False)
    with distributed.agreed():
        prepared = _prepare(config)
        dataset = prepared.dataset
        described = _described(dataset)
    with distributed.agreed():
        run = RunFolder(config, command, described) if distributed.is_first() else None
    run = run or ReadOnlyRunFolder(config, command, described)
    notes = [f"note: {note}" for note in (*dataset.notes, *prepared.notes)]
    lines = [repr(dataset), *notes, f"writing to {run.path}"]
    console.print("\n".join(lines), highlight=False, soft_wrap=True)
    status = 0
    with run:
        try:
            run.keep_networks(lambda: {n: x.counted() for n, x in prepared.networks.items()})
            _Run(config, prepared, run, console).train(signals or Signals())
            if distributed.is_first():
                examples.keep(run.path, dataset)
        except KeyboardInterrupt as stopped:
            status = stopped.status if isinstance(stopped, Stopped) else 130
            console.print(
                "interrupted; writing what was measured so far. The same command with "
                f"--out {run.path} resumes the run",
                soft_wrap=True,
            )
    return Ended(run.path, not status, status)


class _Prepared(NamedTuple):
    """A checked config with what it needs to run."""

    planned: Sequence[Program]
    networks: Mapping[str, Network]
    dataset: Dataset | StreamedDataset
    teacher: Trained | None
    notes: Sequence[str]


def _prepare(config: Config) -> _Prepared:
    """Checks all that can be checked before a run folder is made.

    Raises:
      ValueError: if the config can't be run.
      OSError: if what it names can't be read.
    """
    planned = programs(config)
    for program in planned:
        choose("optimizer", program.optimizer, OPTIMIZERS)
    dataset = _load(config)
    _check_batch(config, dataset)
    layout_for(config, 1)  # refuses a batch that its devices can't share
    names = (program.config.network for program in planned)
    networks = networks_of(config, names, len(dataset.classes), dataset.image_shape)
    data = weights.data_for(dataset)
    teacher = None
    if config.teacher is not None:
        teacher = load_teacher(config.teacher, data, own=[*networks, config.teacher_network])
    notes: dict[str, None] = {}
    for program in planned:  # before the folder: a bad hyperparameter leaves nothing behind
        network = networks[program.config.network]
        for member in program.members:
            if config.start is not None:
                start = find_start(config.start, member, network, data)
                start.load(*network.shapes)
                notes |= dict.fromkeys(start.notes(data))
            make_optimizer(program.optimizer, program.config.at(member.point), 1, network.axes)
    return _Prepared(planned, networks, dataset, teacher, tuple(notes))


class _Run:
    """All members of a config that are left to train."""

    def __init__(self, config: Config, prepared: _Prepared, run: RunFolder, console: Console):
        self.config, self.run_folder, self.console = config, run, console
        self.planned, self.networks = prepared.planned, prepared.networks
        self.teacher, dataset = prepared.teacher, prepared.dataset
        self.feed, self.data = feed_of(dataset, config), weights.data_for(dataset)
        self.planned_count = sum(len(p.members) for p in self.planned)
        # A sweep has several points for an optimizer.
        points = len(config.seeds) * len({p.optimizer for p in self.planned})
        self.sweep = self.planned_count > points
        self.steps: dict[int, Steps] = {}
        self.warned: set[tuple[str, str]] = set()

    def train(self, signals: Signals) -> None:
        streamed = self.config.image_size is not None  # every training has its own order
        size = 1 if streamed else self.config.members_at_once or self._fitting()
        unfinished = Unfinished(self.run_folder, self.config, chunks(self.planned, size))
        done = len(unfinished.done)
        if done:
            self.console.print(f"{done} of {self.planned_count} trainings are done")
        numbers = {id(program): number for number, program in enumerate(self.planned)}
        plan = [(numbers[id(program)], len(members)) for program, members in unfinished.chunks]
        with Bars(self.console, self.config, plan, sweep=self.sweep, done=done) as bars:
            for number, (program, members) in enumerate(unfinished.chunks):
                group = self._group(program, members, size)
                with bars.training(group):
                    training = Training(
                        self.config,
                        group,
                        self.run_folder,
                        data=self.data,
                        sweep=self.sweep,
                        report=bars,
                        signals=signals,
                        on_fault=self._warn,
                    )
                    if number == 0:
                        unfinished.resume(training, self.console)
                    training.run()
        if self.sweep and distributed.is_first():
            keep_best_weights(self.run_folder.path)

    def _warn(self, layer: str, what: str, remedy: str) -> None:
        """Shows a fault once: all trainings of a run have the same layers."""
        if (layer, remedy) not in self.warned:
            self.warned.add((layer, remedy))
            text = f"warning: {layer}: {what}. {remedy[:1].upper()}{remedy[1:]}"
            self.console.print(text, soft_wrap=True, markup=False, highlight=False)

    def _group(self, program: Program, members: Sequence[Member], size: int) -> StepGroup:
        size = min(size, len(program.members))
        if id(program) not in self.steps:  # compiled once a program
            self.steps[id(program)] = self._steps(program, layout_for(self.config, size))
        return filled_group(self.steps[id(program)], members, size, program.varying)

    def _steps(self, program: Program, layout: Layout) -> Steps:
        config, network = program.config, self.networks[program.config.network]
        return Steps(
            network, program.optimizer, config, self.feed, layout=layout, teacher=self.teacher
        )

    def _fitting(self) -> int:
        if self.config.spread == "batch":
            return 1
        program = self.planned[0]
        steps = self._steps(program, MembersApart(jax.devices()[:1]))
        return members_that_fit(steps, program.varying, jax.devices())


def _described(dataset: Dataset | StreamedDataset) -> dict[str, Any]:
    """What data.json says of a data set, to refuse resuming with another one."""
    counts = {"train_images": dataset.train_count, "test_images": dataset.test_count}
    prints = {f"{split}_fingerprint": text for split, text in dataset.fingerprints().items()}
    return {**counts, "classes": dataset.classes, **prints}


def _load(config: Config) -> Dataset | StreamedDataset:
    names = ["data_dir", "train_images", "held_out"]
    if config.image_size is None:
        return load(config.data, **{name: getattr(config, name) for name in names})
    names += ["image_size", "workers"]
    return load_streamed(config.data, **{name: getattr(config, name) for name in names})


def _sizes(config: Config) -> Sizes:
    names = ("data_dir", "train_images", "held_out", "image_size")
    sizes = sizes_of(config.data, **{name: getattr(config, name) for name in names})
    _check_batch(config, sizes)
    return sizes


def _check_batch(config: Config, dataset: Dataset | StreamedDataset | Sizes) -> None:
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


@dataclass(frozen=True)
class Command:
    """What a command line asks for."""

    config: tyro.conf.OmitArgPrefixes[Config]
    """of the run"""
    compile_for: str | None = None
    """train nothing, but say what it would need on a TPU slice such as v5e:2x2 or v5p:4x4x4, or on
    GPUs, h100 or h100:8: memory, time, the batch that fits, as their compilers estimate it. No such
    device is needed, and no images of CIFAR and ImageNet: docs/guides/accelerators.md"""


def read(arguments: Sequence[str], several: bool = False) -> Config:
    """The config of a command line, for one process or for several that divide batches.

    Raises:
      ValueError: if it can't be run by so many.
      SystemExit: if it can't be parsed, after a message, or asks for help.
    """
    return read_command(arguments, several).config


def read_command(arguments: Sequence[str], several: bool = False) -> Command:
    """The same, with what is to be done with it."""
    left = list(arguments)
    named = bool(left) and not left[0].startswith("-")
    name = left.pop(0) if named else "digits"
    recipe = choose("recipe", name, RECIPES)
    command = tyro.cli(
        Command,
        args=left,
        default=Command(recipe.at({"spread": "batch"}) if several else recipe),
        prog="python -m experiments.train [RECIPE]",
        description=(
            "Trains a binary network with several optimizers and compares them, or sweeps "
            "their settings. Compiled programs are kept in the user's cache folder; the "
            "environment variable JAX_COMPILATION_CACHE_DIR names another one, or none if it "
            f"is empty. RECIPE is one of {', '.join(RECIPES)}; every field of it can be "
            f"changed. This is {name}:\n\n{ABOUT[name]}"
        ),
    )
    config = command.config
    if command.compile_for is not None:
        platform_of(command.compile_for)  # refuses what is no target
        if several:
            raise ValueError(
                f"--compile-for {command.compile_for} starts no processes: give it to "
                "experiments.train, which compiles for all hosts of a slice."
            )
    if several and config.spread != "batch":
        raise ValueError(f"spread={config.spread} divides nothing: omit --spread.")
    if several and config.out is None:
        raise ValueError("--out is missing: several processes need one run folder.")
    return command


def main(arguments: Sequence[str] | None = None, join: Callable[[], None] | None = None) -> int:
    """The command line; returns the exit status.

    `join` waits for the other processes, if several train together; they divide each batch.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        asked = read_command(arguments, several=join is not None)
        config = asked.config
        if asked.compile_for is not None:
            with Signals().handled():
                estimate(asked.compile_for, config, _sizes(config), Console(highlight=False))
            return 0
        module = "experiments.train" if join is None else "experiments.launch"
        command = shlex.join(["python", "-m", module, *arguments])
        if join is not None:
            join()
        elif config.spread == "batch":
            distributed.in_one_order()
        elif config.members_at_once is None:
            one_device_a_core()
        console = Console(highlight=False, markup=False, quiet=not distributed.is_first())
        signals = Signals()
        with signals.handled(), nullcontext() if distributed.alone() else signals.waiting():
            path, _, status = train(config, console, command, signals)
            if not distributed.is_first() or not (path / "metrics.jsonl").stat().st_size:
                return status  # without a row there is nothing to show
            drawn = figures.draw(path)  # first, since the summary shows them
            written = summary.write_summary(path)
            page = html.write_report(path)
    except (ValueError, OSError) as error:
        if distributed.says_lost(error):
            raise
        print(f"error: {error}", file=sys.stderr)
        return 2
    except distributed.RefusedError:
        return 2
    except Stopped as stopped:  # before the run began, or while figures were drawn
        return stopped.status
    summary.print_table(written, console)
    for file in (*drawn, path / "summary.md", page):
        console.print(str(file), soft_wrap=True)
    return status


def run_as_program(program: Callable[[], int]) -> NoReturn:
    """Runs `program` in a process set for training, and ends the process with its status."""
    never_fail()
    keep_freed_memory()
    if (reason := keep_compiled_programs()) is not None:
        print(reason, file=sys.stderr)
    status = program()
    sys.stdout.flush()
    sys.stderr.flush()
    # Not sys.exit: XLA crashes in its exit handlers if a compilation was interrupted.
    os._exit(status)


if __name__ == "__main__":
    run_as_program(main)
