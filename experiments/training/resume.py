"""The members of a run that are left to train, and where they resume."""

from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console

from experiments.config import Config
from experiments.process import distributed
from experiments.run.folder import RunFolder, member_of
from experiments.sweep.members import Member, Program
from experiments.training.loop import Training

Chunk = tuple[Program, Sequence[Member]]


class Unfinished:
    """The members of a run that are not trained yet, from what its folder holds.

    Attributes:
      done: keys of the trained members.
      chunks: the others, grouped as they train together, those of the checkpoint first.
    """

    def __init__(self, run: RunFolder, config: Config, chunks: Iterable[Chunk]):
        self._run, self._rows, self._epochs = run, run.rows(), config.epochs
        self._has_lines = run.has_lines()
        last = {member_of(r).key for r in self._rows if r["epoch"] == config.epochs}
        about = run.checkpoints.about()
        members = None if about is None else about.get("members")
        self._in_training = members if isinstance(members, list) else []
        self._only_damaged = about is None and bool(run.checkpoints.numbers())
        whole = list(chunks)  # a kill may leave the last rows of only some of a group
        in_training = {m.key for _, ms in whole if self._is_in_training(ms) for m in ms}
        stopped = in_training if in_training - last else set()
        self.done = last - stopped
        left = [(p, [m for m in members if m.key not in self.done]) for p, members in whole]
        self.chunks: list[Chunk] = [(program, members) for program, members in left if members]
        distributed.wait("reading of what was written")  # before the first process trims it
        if not self.chunks or (in_training and not stopped):
            run.checkpoints.remove()  # a kill came before the training removed them
            self._in_training = []

    def resume(self, first: Training, console: Console) -> None:
        """Resumes from a checkpoint, and keeps only the rows of finished epochs.

        So no epoch appears twice. Dropped rows go to metrics.dropped.jsonl. `first` is the first
        training that is left.

        Raises:
          ValueError: if the checkpoint is of another training.
        """
        if not (self._has_lines or self._in_training or self._only_damaged):
            return
        started = {m.key for m in first.group.members}
        if self._only_damaged or self._in_training == first.group.keys:
            first.restore(lambda text: console.print(text, soft_wrap=True))
            fits = first.restored is None or self._has_epochs(started, first.epochs_done)
        else:
            fits = not self._in_training
        if not fits:
            first.restored = None
            place = self._run.checkpoints.put_aside()
            console.print(
                "the checkpoint is not of the next members with all of their epochs in "
                "metrics.jsonl (did --members-at-once or the number of devices change?). It is "
                f"now {place}; the unfinished trainings start again",
                soft_wrap=True,
            )
        self._keep_rows(started, first, console)

    def _has_epochs(self, started: set[Any], count: int) -> bool:
        there = {(member_of(r).key, r["epoch"]) for r in self._rows}
        return all((key, e) in there for key in started for e in range(1, count + 1))

    def _keep_rows(self, started: set[Any], first: Training, console: Console) -> None:
        reached = first.epochs_done
        kept: list[Any] = []
        dropped: list[Any] = []
        for row in self._rows:
            key = member_of(row).key
            keep = key in self.done or (key in started and row["epoch"] <= reached)
            (kept if keep else dropped).append(row)
        self._run.note_continued()
        console.print(
            f"resuming after epoch {reached} of {self._epochs}"
            f"{f' and {first.steps_done} steps' if first.steps_done else ''}; "
            f"{len(dropped)} rows are measured again"
        )
        self._run.keep_rows(kept, dropped)

    def _is_in_training(self, members: Sequence[Member]) -> bool:
        keys = [[m.optimizer, dict(m.point), m.seed] for m in members]
        return bool(keys) and self._in_training[: len(keys)] == keys
