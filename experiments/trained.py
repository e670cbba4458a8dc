"""The networks that runs have trained, for programs of your own: `load_trained(RUN)`."""

from experiments.training.trained import Trained, load_trained

__all__ = ["Trained", "load_trained"]
