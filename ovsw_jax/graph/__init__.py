"""What is done to a whole Flax NNX network: binarised, inspected, summarised, asked for axes."""

from ovsw_jax.graph.binarize import binarize
from ovsw_jax.graph.conversion_report import binarize_report
from ovsw_jax.graph.filter_axes import filter_axes, layer_axes
from ovsw_jax.graph.inspection import inspect
from ovsw_jax.graph.summary import summary
from ovsw_jax.graph.where import skip_depthwise, skip_narrow, skip_squeeze_excite

__all__ = [
    "binarize",
    "binarize_report",
    "filter_axes",
    "inspect",
    "layer_axes",
    "skip_depthwise",
    "skip_narrow",
    "skip_squeeze_excite",
    "summary",
]
