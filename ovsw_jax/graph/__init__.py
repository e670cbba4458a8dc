"""What is done to a whole Flax NNX network: made binary, summarised, asked for its axes."""

from ovsw_jax.graph.binarize import binarize
from ovsw_jax.graph.filter_axes import filter_axes, layer_axes
from ovsw_jax.graph.summary import summary

__all__ = ["binarize", "filter_axes", "layer_axes", "summary"]
