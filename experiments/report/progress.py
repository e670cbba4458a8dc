"""Live progress of a run: bars in a terminal, lines elsewhere, and the time that is left."""

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, NamedTuple, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from experiments.config import Config
from experiments.optimizers import display_name
from experiments.report.time_left import TimeLeft, duration
from experiments.sweep.arms import Arm, arms_of, field_name, planned_points, value_text
from experiments.sweep.members import Member
from experiments.training.step_group import StepGroup

LINE_SECONDS = 25.0  # from line to line, where the output is no terminal
SETTLED_SECONDS = 5.0  # of training, until a speed is good for an estimate
WORTH_SAYING = 60.0  # seconds: a run that is shorter needs no estimate
_MOST_VALUES = 3  # of a field, that a label lists

Numbers = Mapping[str, float]


class _Group(NamedTuple):
    """Members that train together now.

    Attributes:
      label: what tells them from the others.
      program: number of their program.
      size: how many they are.
      steps: of the whole training.
      steps_per_epoch: of them, in an epoch.
      task: their bar.
      start: where they start on it.
    """

    label: str
    program: int
    size: int
    steps: int
    steps_per_epoch: int
    task: TaskID
    start: int


class Bars:
    """A bar for each optimizer, or one for a whole sweep, with loss, top-1, images/s, flips.

    If the output is no terminal, it prints a line per epoch, or in a sweep a line when members are
    done; and every 25 seconds a line of the step. Either way with the time left of the whole run.

    It takes numbers that the training has at hand and waits for none.

    Args:
      console: where to.
      config: of the run.
      plan: of each group of trainings that is left, in order: the number of its program, and how
        many trainings it holds.
      sweep: whether an optimizer has several points.
      done: trainings that were done before.
      clock: seconds of a steady clock.
    """

    def __init__(
        self,
        console: Console,
        config: Config,
        plan: Sequence[tuple[int, int]],
        *,
        sweep: bool,
        done: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._console, self._config, self._sweep, self._clock = console, config, sweep, clock
        self._left_to_train, self._done = list(plan), done
        self._count = done + sum(members for _, members in plan)
        self._time_left = TimeLeft([program for program, _ in plan], config.epochs)
        self._compiled: set[int] = set()  # programs that have ended an epoch
        self._bar_of_sweep: TaskID | None = None
        self._last: tuple[int, Numbers] | None = None
        self._said_at = self._epoch_began = clock()
        self._settles_at: float | None = None
        self._estimated = False
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=6),
            TextColumn("{task.fields[numbers]}"),
            TextColumn("{task.fields[left]}"),
            console=console,
            disable=not console.is_terminal,
        )

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._progress.stop()

    @contextmanager
    def training(self, group: StepGroup) -> Iterator[None]:
        """While these members train; they are the next ones of the plan."""
        per_epoch = group.steps.steps_per_epoch
        steps = self._config.epochs * per_epoch
        self._time_left.begin(steps)
        label = label_of(group.members[: group.count], self._config)
        program, _ = self._left_to_train[0]
        task, start = self._bar(display_name(group.members[0].optimizer), steps)
        self._group = _Group(label, program, group.count, steps, per_epoch, task, start)
        self._last, self._epoch_began = None, self._clock()
        yield
        self._left_to_train.pop(0)
        self._done += group.count
        if self._sweep:
            self._progress.update(task, description=f"{self._done}/{self._count}")
        else:
            self._progress.update(task, left="")

    @property
    def due(self) -> bool:
        """Whether `step` is wanted now: always in a terminal, else when it prints something.

        Also at the first step, when all is compiled, what numbers need too.
        """
        if self._console.is_terminal or not self._estimated or self._last is None:
            return True
        return self._line_is_due

    def step(self, step: int, numbers: Numbers) -> None:
        """So many steps are made, with these means of the epoch so far."""
        self._reach(step, numbers)
        self._say_step("")

    def evaluating(self) -> None:
        """Between two batches of an evaluation."""
        self._say_step("evaluating, ")

    def epoch(self, epoch: int, numbers: Numbers) -> None:
        """So many epochs are done, with these means of the last one."""
        now, group = self._clock(), self._group
        if group.program in self._compiled:  # else it was compiled in this epoch
            self._time_left.between(now - self._epoch_began - numbers.get("seconds", 0.0))
        self._compiled.add(group.program)
        self._epoch_began = now
        self._reach(epoch * group.steps_per_epoch, numbers, settled=True)
        if not self._sweep:
            self._say(f"{group.label}  epoch {epoch}/{self._config.epochs}  {describe(numbers)}")
        elif epoch == self._config.epochs:
            done = f"{self._done + group.size}/{self._count}"
            self._say(f"{done}  {group.label}  {describe(numbers)}")

    def _reach(self, step: int, numbers: Numbers, *, settled: bool = False) -> None:
        group, speed = self._group, numbers["images_per_second"]
        images = self._config.batch_size * group.size
        self._time_left.reach(step, images / speed if speed > 0 else None)
        self._last = step, numbers
        if self._settles_at is None and speed > 0:
            self._settles_at = self._clock() + SETTLED_SECONDS
        if settled or (self._settles_at is not None and self._clock() >= self._settles_at):
            self._estimate()
        done = group.start + step * group.size if self._sweep else step
        self._progress.update(
            group.task, completed=done, numbers=describe(numbers), left=self._left()
        )

    def _estimate(self) -> None:
        """Says once how long the run takes, and what makes it shorter."""
        training, left = self._time_left.training, self._time_left.left
        if self._estimated or training is None or left is None:
            return
        self._estimated = True
        if left >= WORTH_SAYING:
            groups = [members for _, members in self._left_to_train]
            self._print(estimate(training, left, groups, self._config))

    def _left(self) -> str:
        left = self._time_left.left
        return "" if not left else duration(left)

    @property
    def _line_is_due(self) -> bool:
        return self._clock() - self._said_at >= LINE_SECONDS

    def _say_step(self, doing: str) -> None:
        if self._last is None or not self._line_is_due:
            return
        step, numbers = self._last
        of = f"{self._done}/{self._count}  " if self._sweep else ""
        at = f"{doing}step {step:,}/{self._group.steps:,}"
        self._say(f"{of}{self._group.label}  {at}  {describe(numbers)}")

    def _say(self, text: str) -> None:
        left, self._said_at = self._left(), self._clock()
        if not self._console.is_terminal:
            self._print(f"{text}  {left} left" if left else text)

    def _print(self, text: str) -> None:
        self._console.print(text, soft_wrap=True, markup=False, highlight=False)

    def _bar(self, name: str, steps: int) -> tuple[TaskID, int]:
        """The bar, and where its members start on it."""
        now: dict[str, Any] = {"numbers": "compiling", "left": ""}
        if not self._sweep:
            return self._progress.add_task(name, total=steps, **now), 0
        start = self._done * steps
        if self._bar_of_sweep is None:
            text = f"{self._done}/{self._count}"  # short: all of it must fit 80 columns
            total = self._count * steps
            self._bar_of_sweep = self._progress.add_task(text, total=total, completed=start, **now)
        return self._bar_of_sweep, start


def label_of(members: Sequence[Member], config: Config) -> str:
    """Members by what tells them from the others of the run.

    >>> sweep = Config(grids=("optimizer=ovsw lam=0.01,0.08",), seeds=(0, 1))
    >>> label_of([Member("ovsw", {"lam": 0.01}, 0), Member("ovsw", {"lam": 0.08}, 0)], sweep)
    'OvSW, lam 0.01, 0.08 (seed 0)'
    """
    fields = dataclasses.asdict(config)
    points = [(member.optimizer, member.point) for member in members]
    arms = arms_of([*planned_points(fields), *points], fields)[-len(points) :]
    seeds = list(dict.fromkeys(member.seed for member in members))
    named = ", ".join([display_name(arms[0].optimizer), *_values(arms)])
    return f"{named} (seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))})"


def _values(arms: Sequence[Arm]) -> Iterator[str]:
    for field in dict.fromkeys(field for arm in arms for field in arm.point):
        values = dict.fromkeys(value_text(a.point[field]) for a in arms if field in a.point)
        listed = [*values]
        if len(listed) > _MOST_VALUES:
            listed = [f"{listed[0]} to {listed[-1]}"]
        yield f"{field_name(field)} {', '.join(listed)}"


def estimate(training: float, left: float, groups: Sequence[int], config: Config) -> str:
    """How long a run takes, and which options make it shorter.

    Args:
      training: seconds that a group of trainings takes.
      left: seconds until all are trained.
      groups: trainings in each group that is left.
      config: of the run.

    >>> estimate(61_200, 612_000, [1] * 10, Config(seeds=(0, 1, 2, 3, 4)))
    'about 17 h a training, 10 trainings, 7.1 days; --epochs, --seeds, --optimizers shorten it'
    """
    varied = ["--epochs", *["--seeds"] * (len(config.seeds) > 1)]
    if config.grids:
        varied.append("--grids")
    elif len(config.optimizers) > 1:
        varied.append("--optimizers")
    count, together = sum(groups), max(groups)
    unit = "a training" if together == 1 else f"for {together} trainings that share a step"
    whole = "" if len(groups) == 1 else f", {count} trainings, {duration(left)}"
    shorten = "shorten" if len(varied) > 1 else "shortens"
    return f"about {duration(training)} {unit}{whole}; {', '.join(varied)} {shorten} it"


def describe(numbers: Numbers) -> str:
    """The numbers of a step or an epoch in one line, which fits 80 columns beside name and bar.

    >>> describe({"loss": 0.5, "top1": 0.91, "images_per_second": 1200.0, "flip_ratio": 0.001,
    ...           "silent_ratio": 0.8})
    'loss 0.500 top-1 91.0% 1,200 img/s flip 0.10% silent 80.0%'
    """
    text = f"loss {numbers['loss']:.3f} top-1 {numbers['top1']:.1%}"
    if numbers["images_per_second"] > 0:  # else it is not measured yet
        text += f" {numbers['images_per_second']:,.0f} img/s"
    if "flip_ratio" in numbers:  # else the weights are real
        text += f" flip {numbers['flip_ratio']:.2%} silent {numbers['silent_ratio']:.1%}"
    if numbers.get("skipped_steps"):
        text += f" skipped {numbers['skipped_steps']:,.0f}"
    if numbers.get("given_up"):
        text += f" given up {numbers['given_up']:.0f}"
    return text
