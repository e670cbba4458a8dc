"""Live progress of a run in the terminal."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from experiments.optimizers import display_name
from experiments.training.step_group import StepGroup

Report = Callable[[int, Mapping[str, float]], None]


class Bars:
    """A bar for each optimizer, or one for a whole sweep, with loss, top-1, images/s, flips.

    If the output is no terminal, it prints a line per epoch, or in a sweep a line when members are
    done. `done` of the `count` members were trained before.
    """

    def __init__(self, console: Console, sweep: bool, *, done: int, count: int):
        self._console, self._sweep, self._done, self._count = console, sweep, done, count
        self._sweep_bar: TaskID | None = None
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=6),
            TextColumn("{task.fields[numbers]}"),
            TimeRemainingColumn(compact=True),
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
    def training(self, group: StepGroup, epochs: int) -> Iterator[tuple[Report, Report]]:
        """Callbacks for members that train together: after steps, and after epochs."""
        steps = epochs * group.steps.steps_per_epoch
        name = display_name(group.members[0].optimizer)
        task, start = self._task(name, steps)
        seeds = sorted({m.seed for m in group.members})
        label = f"{name} (seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))})"

        def on_step(step: int, numbers: Mapping[str, float]) -> None:
            done = start + step * group.count if self._sweep else step
            self._progress.update(task, completed=done, numbers=describe(numbers))

        def on_epoch(epoch: int, numbers: Mapping[str, float]) -> None:
            on_step(epoch * group.steps.steps_per_epoch, numbers)
            if not self._sweep:
                self._line(f"{label}  epoch {epoch}/{epochs}  {describe(numbers)}")
            elif epoch == epochs:
                done = self._done + group.count
                self._line(f"{done}/{self._count}  {label}  {describe(numbers)}")

        yield on_step, on_epoch
        self._done += group.count
        if self._sweep:
            self._progress.update(task, description=f"{self._done}/{self._count}")

    def _task(self, name: str, steps: int) -> tuple[TaskID, int]:
        """The bar, and where these members start on it."""
        if not self._sweep:
            return self._progress.add_task(name, total=steps, numbers="compiling"), 0
        start = self._done * steps
        if self._sweep_bar is None:
            text = f"{self._done}/{self._count}"  # short: all of it must fit 80 columns
            self._sweep_bar = self._progress.add_task(
                text, total=self._count * steps, completed=start, numbers="compiling"
            )
        return self._sweep_bar, start

    def _line(self, text: str) -> None:
        if not self._console.is_terminal:
            self._console.print(text, soft_wrap=True, markup=False, highlight=False)


def describe(numbers: Mapping[str, float]) -> str:
    """The numbers of a step or an epoch in one line, which fits 80 columns beside name and bar.

    >>> describe({"loss": 0.5, "top1": 0.91, "images_per_second": 1200.0, "flip_ratio": 0.001,
    ...           "silent_ratio": 0.8})
    'loss 0.500 top-1 91.0% 1,200 img/s flip 0.10% silent 80.0%'
    """
    text = (
        f"loss {numbers['loss']:.3f} top-1 {numbers['top1']:.1%} "
        f"{numbers['images_per_second']:,.0f} img/s"
    )
    if "flip_ratio" in numbers:  # else the weights are real
        text += f" flip {numbers['flip_ratio']:.2%} silent {numbers['silent_ratio']:.1%}"
    if numbers.get("skipped_steps"):
        text += f" skipped {numbers['skipped_steps']:,.0f}"
    if numbers.get("given_up"):
        text += f" given up {numbers['given_up']:.0f}"
    return text
