"""Where trainings with `--start` begin: at weights of another run, with a new head if need be."""

from pathlib import Path
from typing import Any, NamedTuple

from experiments.run import weights
from experiments.sweep.members import Member
from experiments.training.networks import Network


class Start(NamedTuple):
    """The trained weights that a training begins with.

    Attributes:
      path: their file.
      head: paths of the arrays that are initialised anew instead, since the classes are others.
      there: the data that they were trained on.
    """

    path: Path
    head: frozenset[str]
    there: weights.Data

    def load(self, params: Any, statistics: Any) -> tuple[Any, Any]:
        """Initial parameters and batch statistics, or their shapes, replaced by trained ones.

        Raises:
          ValueError: as `weights.load`.
        """
        return weights.load(self.path, params, statistics, self.head)

    def notes(self, here: weights.Data) -> list[str]:
        """What differs from the data of the run that starts, in words."""
        found = []
        if self.head:
            layers = sorted({path.partition("/")[2].rpartition("/")[0] for path in self.head})
            found.append(
                f"{self.path} was trained on other classes ({len(self.there.classes)} there, "
                f"{len(here.classes)} here): the head ({', '.join(layers)}) is initialised anew, "
                "all other layers start from its weights"
            )
        if self.there.image_shape != here.image_shape:
            found.append(
                f"{self.path} was trained on images of {self.there.image_shape}, these are "
                f"{here.image_shape}"
            )
        return found


def find_start(run: Path, member: Member, network: Network, here: weights.Data) -> Start:
    """The weights of `run` with which a member begins.

    Raises:
      ValueError: if `run` is no run folder, or keeps no weights.
    """
    path = weights.find(run, member.optimizer, member.seed)
    there = weights.data_of(path)
    return Start(path, network.head if there.classes != here.classes else frozenset(), there)
