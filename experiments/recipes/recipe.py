"""A config that is worth a name."""

from typing import NamedTuple

from experiments.config import Config


class Recipe(NamedTuple):
    """A config and what a reader needs to know of it.

    Attributes:
      config: every field of the run.
      about: a title, the command, the data, the cost, what to expect, and where each number comes
        from.
    """

    config: Config
    about: str
