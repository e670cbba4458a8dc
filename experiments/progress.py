"""Live progress of a run in the terminal."""

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


class TrainingProgress:
    """A bar for each optimizer with loss, top-1, images/s, flip and silent ratio.

    Where the output is no terminal, a line an epoch instead.
    """

    def __init__(self, console: Console):
        """Shows nothing yet; use as a context manager."""
        self._console = console
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=8),
            TextColumn("{task.fields[numbers]}"),
            TimeRemainingColumn(compact=True),
            console=console,
            disable=not console.is_terminal,
        )

    def __enter__(self) -> Self:
        """Starts drawing."""
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stops drawing; what is drawn stays."""
        self._progress.stop()

    def add(self, name: str, steps: int) -> TaskID:
        """A new bar that says it is compiling until the first step."""
        return self._progress.add_task(name, total=steps, numbers="compiling")

    def step(self, task: TaskID, step: int, numbers: dict[str, float]) -> None:
        """Moves a bar to `step` with the numbers of that step."""
        self._progress.update(task, completed=step, numbers=describe(numbers))

    def epoch(self, name: str, epoch: int, epochs: int, numbers: dict[str, float]) -> None:
        """A line for an epoch, where bars can't be drawn."""
        if not self._console.is_terminal:
            print(f"{name}  epoch {epoch}/{epochs}  {describe(numbers)}", flush=True)


def describe(numbers: dict[str, float]) -> str:
    """The numbers of a step or an epoch in a line; it fits 80 columns beside name and bar.

    >>> describe({"loss": 0.5, "top1": 0.91, "images_per_second": 1200.0, "flip_ratio": 0.001,
    ...           "silent_ratio": 0.8})
    'loss 0.500 top-1 91.0% 1,200 images/s flip 0.10% silent 80.0%'
    """
    return (
        f"loss {numbers['loss']:.3f} top-1 {numbers['top1']:.1%} "
        f"{numbers['images_per_second']:,.0f} images/s flip {numbers['flip_ratio']:.2%} "
        f"silent {numbers['silent_ratio']:.1%}"
    )
