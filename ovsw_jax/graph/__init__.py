"""What is done to a whole Flax NNX network: made binary, and summarised."""

from ovsw_jax.graph.binarize import binarize
from ovsw_jax.graph.summary import summary

__all__ = ["binarize", "summary"]
