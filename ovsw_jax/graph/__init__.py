"""What is done to a whole Flax NNX network: binarised, inspected, summarised, asked for axes."""

from ovsw_jax.graph.binarize import binarize
from ovsw_jax.graph.filter_axes import filter_axes, layer_axes
from ovsw_jax.graph.inspection import inspect
from ovsw_jax.graph.inspection_table import Inspection, LayerInspection
from ovsw_jax.graph.summary import summary

__all__ = [
    "Inspection",
    "LayerInspection",
    "binarize",
    "filter_axes",
    "inspect",
    "layer_axes",
    "summary",
]
