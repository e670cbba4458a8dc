"""Members that share one compiled step."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from experiments.sweep.members import Member
from experiments.training.step import Steps, Values


@dataclass(frozen=True)
class StepGroup:
    """Members of one program in one compiled step.

    Attributes:
      steps: the compiled functions.
      members: the members; the last one is repeated to fill the step.
      count: members without repetitions.
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


def filled_group(
    steps: Steps, members: Sequence[Member], size: int, varying: Sequence[str]
) -> StepGroup:
    """`members` with the last one repeated, so that all steps of a program have one shape."""
    filled = [*members, *[members[-1]] * (size - len(members))]
    return StepGroup(steps, filled, len(members), varying)
