"""Cuts the reference numbers down to what the tests read, into `tests/reference/`.

`python -m tests.golden_cut FOLDER` reads the full files in FOLDER. The same numbers give the same
files, byte for byte with the same NumPy and zlib.
"""

import pathlib
import re
import sys
from collections.abc import Mapping

import numpy as np

FOLDER = pathlib.Path(__file__).parent / "reference"

_PRECISION = "(train|eval)/(f32|f64)"
# The arrays of each file that are kept, by a pattern for the whole of their name.
KEPT = {
    "ags": r"cases|deltas|\w+/(weight|grad)|\w+/d0\.0[14]/(f32|f64)/(scaled_grad|mean_ratio|judge)",
    "alg3": r"W0|G|beta|rec_steps|hparam_names|hparams|Vnew_Snew/(W|mask|gbar|n_silent)"
    r"|Vnew_Snew_sign0pos/(W|V|mask|gbar|n_flip|n_silent)",
    "lars": r"beta|layers|params/p\d|\w+/(W0|G)|\w+/p\d/(literal|updated)/lambda",
    "layer_forward_backward": rf"\w+/(geom|x|w|ct|b)|k1_fanin1/getscale/{_PRECISION}/out"
    rf"|(?!k1_fanin1/)\w+/getscale/{_PRECISION}/(out|dx|dw|db)"
    rf"|(?!k1_fanin1/)\w+/sf2?/{_PRECISION}/(out|dx|dw|sf|dsf)",
    "models": r"block/\w+/(x|ct|param/.*|(f32|f64)/(out_train|dx|grad/.*|buffers/.*running_\w+))"
    r"|model/\w+/(param_names|param_shapes|binary_layers|official_init_mean_std)"
    r"|model/ResNet18\w*/(y|seed|hparams|(grad|hooked)_(l2|samples)|param_samples_after1"
    r"|loss|loss_after1|logits|logits_after1_\w+)",
    # The signs of earlier layers' inputs show the images that the network was given.
    "model_step": r"A/f64/(hooked_)?grad0/(layer1\.0\.conv1|layer3\.0\.conv1)\.weight"
    r"|init/(layer1\.0\.conv1|layer3\.0\.conv[12])\.weight"
    r"|A/f64/step0_input_positive_bits/layer3\.0\.conv[12]"
    r"|A/f64/bn_after_first_forward/layer3\.0\.bn[12]\.running_(mean|var)",
    "sad_trajectory": r"seed|rec_steps|periods|sc_exp|D|shape|w0|grad_check|grad_check_steps"
    r"|d00[14]/(lr|hparams)"
    r"|d00[14]/f64/(n_silent|n_flip|transition_step|transition_index|mask_at_0)",
    "schedule": r"cifar_e\d+_w5|imagenet_\w+",
}
LARS_STEPS = np.array([0, 1, 2, 5, 6, 7, 8, 9, 15, 25, 37, 49])


def cut(name: str, full: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What is kept of the arrays of `<name>.npz`; a part of an array gets a name of its own."""
    kept = {key: array for key, array in full.items() if re.fullmatch(KEPT[name], key)}
    if name == "lars":
        kept["rec_steps"] = LARS_STEPS
        for key, array in full.items():
            if re.fullmatch(r"\w+/p\d/\w+/(W|V)", key):
                kept[f"{key}_at_rec_steps"] = array[LARS_STEPS]
    if name == "sad_trajectory":
        for key, array in full.items():
            if re.fullmatch(r"\w+/(f32|f64)/weight|\w+/f32/silent", key):
                kept[f"{key}_of_odd_filters"] = array[:, 1::2]
    return dict(sorted(kept.items()))


def main() -> None:
    (folder,) = map(pathlib.Path, sys.argv[1:])
    FOLDER.mkdir(exist_ok=True)
    for name in KEPT:
        with np.load(folder / f"{name}.npz") as full:
            np.savez_compressed(FOLDER / f"{name}.npz", **cut(name, full))


if __name__ == "__main__":
    main()
