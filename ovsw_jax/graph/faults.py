"""What measures of a binary layer say is wrong, in words, and what to do about it.

The limits are wide: what they report keeps a layer from learning or wastes most of it. Networks
that train well stay within them from the first step on.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax.numpy as jnp

from ovsw_jax.tables import percent

ONE_SIGN = 0.98  # of the input signs
CONSTANT = 0.5  # of the channels
GRADIENT = 0.05  # of the inputs, at least
BLOCKED = 0.5  # of the latent weights

BOTH_SIGNS = (
    "put an activation with both signs in front of it, such as ovsw.nn.hardtanh instead of a ReLU "
    "or sigmoid, or a batch norm; or give it input_sign=LearnedThresholdSign with "
    "normalize_input=False."
)


class Fault(NamedTuple):
    """What is wrong with a layer.

    Fields:
      what: in words, to be read after the name of the layer.
      remedy: what to do about it.
    """

    what: str
    remedy: str


def faults_of(
    measures: Mapping[str, float], input_dtype: str, learns_threshold: bool
) -> tuple[Fault, ...]:
    """The faults of a layer, the worst first.

    Args:
      measures: numbers by the names of `LayerInspection.measures`.
      input_dtype: of its input.
      learns_threshold: whether the sign of its input has a learned threshold.
    """
    found = [
        _not_finite(measures),
        _one_sign(measures, input_dtype, learns_threshold),
        _no_gradient(measures),
        _constant_inputs(measures),
        _constant_outputs(measures),
        _blocked(measures),
    ]
    return tuple(fault for fault in found if fault is not None)


def _not_finite(measures: Mapping[str, float]) -> Fault | None:
    inputs, weights = measures["nonfinite_inputs"], measures.get("nonfinite_weights", 0)
    if inputs:
        return Fault(
            f"{inputs:,.0f} inputs are NaN or infinite",
            "look at the first layer in this table with such inputs, and at what is in front of "
            "it: JAX_DEBUG_NANS=True stops where the first NaN is made.",
        )
    if weights:
        return Fault(
            f"{weights:,.0f} latent weights are NaN or infinite",
            "go back to weights before that, and lower the learning rate or clip gradients "
            "(optax.clip_by_global_norm); optax.apply_if_finite skips such steps.",
        )
    return None


def _one_sign(
    measures: Mapping[str, float], input_dtype: str, learns_threshold: bool
) -> Fault | None:
    share = measures.get("positive_input_ratio")
    if share is None or 1 - ONE_SIGN < share < ONE_SIGN:
        return None
    sign, same = ("+1", share) if share > 0.5 else ("-1", 1 - share)
    what = f"{'every' if same == 1 else percent(same) + ' of the'} input sign{'s' * (same < 1)} "
    what += f"{'is' if same == 1 else 'are'} {sign}"
    if same == 1 and not measures["negative_input_ratio"] and not learns_threshold:
        what += ", since no input is negative"
    if not jnp.issubdtype(input_dtype, jnp.floating):
        return Fault(
            f"{what}: they are {input_dtype}",
            "standardise images first, as (images / 255 - mean) / std, and keep the first layer "
            "real.",
        )
    if learns_threshold:
        return Fault(
            what,
            "its thresholds are learned and may leave this in the first steps: look again then. If "
            "it stays, put ovsw.nn.hardtanh or a batch norm in front of it.",
        )
    return Fault(what, BOTH_SIGNS)


def _no_gradient(measures: Mapping[str, float]) -> Fault | None:
    share = measures.get("input_gradient_ratio", 1.0)
    if share > GRADIENT:
        return None
    size = f" (root mean square {measures['input_rms']:.3g})"
    return Fault(
        f"{'no input' if not share else 'only ' + percent(share) + ' of the inputs'} gets a "
        f"gradient through the sign{size}",
        "bring the inputs into the window of the sign, [-1, 1] for most: a batch norm in front of "
        "it, normalize_input=True, or inputs that are standardised.",
    )


def _constant_inputs(measures: Mapping[str, float]) -> Fault | None:
    share = measures.get("constant_input_ratio", 0.0)
    if share < CONSTANT or _is_of_one_sign(measures):
        return None
    return Fault(
        f"{percent(share)} of the input channels have the same sign for all samples",
        "put a batch norm in front of it, or give it input_sign=LearnedThresholdSign with "
        "normalize_input=False, so that the signs of a channel differ; or give more samples.",
    )


def _constant_outputs(measures: Mapping[str, float]) -> Fault | None:
    share = measures.get("constant_output_ratio", 0.0)
    caused = _is_of_one_sign(measures) or measures.get("constant_input_ratio", 0.0) >= CONSTANT
    if share < CONSTANT or caused:
        return None
    return Fault(
        f"{percent(share)} of the output channels are the same for all samples",
        "its inputs differ, so look at its factor (filter_scale of 0) and bias; or give more "
        "samples.",
    )


def _blocked(measures: Mapping[str, float]) -> Fault | None:
    share = measures.get("blocked_weight_ratio", 0.0)
    if share < BLOCKED:
        return None
    return Fault(
        f"the sign of {'every' if share == 1 else percent(share) + ' of the'} latent "
        f"weight{'s' * (share < 1)} passes no gradient",
        "use kernel_sign=ovsw.nn.ste_sign, which has no window, keep the weights inside by "
        "ovsw.clip_latent, or start with smaller ones.",
    )


def _is_of_one_sign(measures: Mapping[str, float]) -> bool:
    share = measures.get("positive_input_ratio", 0.5)
    return not 1 - ONE_SIGN < share < ONE_SIGN
