"""A config that has a name, and what a reader needs to know of it."""

import textwrap
from typing import NamedTuple

from experiments.config import Config

_WIDTH = 98  # characters of a line of --help


class Recipe(NamedTuple):
    """A named config.

    Attributes:
      config: every field of the run.
      title: what is trained, in a sentence.
      data: which images.
      cost: how many trainings, and how long they take.
      expected: what should come out, or where that is written.
      hyperparameters: where each number comes from.
      options: what the command needs after the recipe's name.
      remark: what else to know of the command.
    """

    config: Config
    title: str
    data: str
    cost: str
    expected: str
    hyperparameters: str
    options: str = ""
    remark: str = ""

    def about(self, name: str) -> str:
        """The recipe's part of `--help`."""
        facts = (
            self.remark,
            f"Data: {self.data}",
            f"Cost: {self.cost}",
            f"Expected: {self.expected}",
            f"Hyperparameters: {self.hyperparameters}",
        )
        command = f"    python -m experiments.train {name} {self.options}".rstrip()
        text = "\n".join(
            textwrap.fill(fact, _WIDTH, break_on_hyphens=False) for fact in facts if fact
        )
        return f"{self.title}\n\n{command}\n\n{text}\n"
