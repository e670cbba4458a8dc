"""OvSW for JAX: Optax transforms and Flax layers that overcome silent weights in binary networks.

Source: Xiang et al., "OvSW: Overcoming Silent Weights for Accurate Binary Neural Networks",
ECCV 2024.
"""

from ovsw_jax import deploy, linen, models, nn
from ovsw_jax.ags import AgsState, ags, scale_by_ags
from ovsw_jax.bop import BopState, bop
from ovsw_jax.clip import clip_latent
from ovsw_jax.conversion import convert_flip_state
from ovsw_jax.flip_state import FlipState
from ovsw_jax.graph import (
    binarize,
    binarize_report,
    filter_axes,
    inspect,
    layer_axes,
    skip_depthwise,
    skip_narrow,
    skip_squeeze_excite,
    summary,
)
from ovsw_jax.horizon import silence_horizon, threshold_for_horizon
from ovsw_jax.lars import LarsState, lars_sgd
from ovsw_jax.latent import latent_mask
from ovsw_jax.masks import never_flipped_mask, silent_mask
from ovsw_jax.metrics import ReportsMetrics, flip_metrics
from ovsw_jax.sad import sad, silence_aware_decay
from ovsw_jax.sgd import ovsw_sgd
from ovsw_jax.tables import table
from ovsw_jax.tracking import track_flip_state

__version__ = "0.2.0"

__all__ = [
    "AgsState",
    "BopState",
    "FlipState",
    "LarsState",
    "ReportsMetrics",
    "ags",
    "binarize",
    "binarize_report",
    "bop",
    "clip_latent",
    "convert_flip_state",
    "deploy",
    "filter_axes",
    "flip_metrics",
    "inspect",
    "lars_sgd",
    "latent_mask",
    "layer_axes",
    "linen",
    "models",
    "never_flipped_mask",
    "nn",
    "ovsw_sgd",
    "sad",
    "scale_by_ags",
    "silence_aware_decay",
    "silence_horizon",
    "silent_mask",
    "skip_depthwise",
    "skip_narrow",
    "skip_squeeze_excite",
    "summary",
    "table",
    "threshold_for_horizon",
    "track_flip_state",
]
