"""What a run is: every number that determines it."""

from experiments.config.config import Config

__all__ = ["Config"]
