"""ResNets on ImageNet, in one step and in two."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from experiments.config import Config
from experiments.recipes.recipe import Recipe

BASE = Config(
    data="imagenet2012",
    image_size=224,
    network="imagenet-resnet18",
    seeds=(42,),
    epochs=200,
    batch_size=512,
    warmup_epochs=5,
    weight_decay=1e-4,
    decay_1d=False,
    lam=0.01,
    tau=2e-5,
)
_AUTHORS = (
    "batch 512, learning rate 0.1, cosine, momentum 0.9, weight decay 1e-4 but not of biases and "
    "batch norm, seed 42, no label smoothing, random resized crop of scale 0.08 to 1.25, flip, "
    "lighting 0.1"
)
_RULES = "lam 0.01, tau 2e-5, mu 0.999, sigma 1e-4"


def _recipe(
    title: str,
    cost: str,
    expected: str,
    hyperparameters: str,
    options: str,
    remark: str = "",
    **changes: Any,
) -> Recipe:
    """`BASE` with some `changes`."""
    return Recipe(
        replace(BASE, **changes),
        title,
        "imagenet2012, prepared for TFDS as array_record; or --data FOLDER of "
        "{train,val}/CLASS/FILE.",
        f"not run; {cost} floating-point operations in all (two for a multiply-accumulate, three "
        "passes), for an accelerator.",
        expected,
        hyperparameters,
        options,
        remark,
    )


RECIPES = {
    "imagenet-resnet18": _recipe(
        "ResNet18 on ImageNet in one step, with the recipe of the authors' code, SGD and OvSW.",
        "2 trainings of 200 epochs of 1.28 million images, 5.6e18",
        "paper: OvSW 61.6 % top-1; peers: ReCU 61.0, AdaBin 63.1 (published). Ours: not run.",
        f"authors' code: 200 epochs, 5 epochs of warm-up, {_RULES}, {_AUTHORS}, initial weights. "
        "Ours: crops of 224 pixels, of 256 in the test, the usual ones.",
        "--out runs/imagenet-resnet18    # again to resume",
    ),
    "imagenet-resnet34": _recipe(
        "ResNet34 on ImageNet in one step, with the recipe of the authors' code, SGD and OvSW.",
        "2 trainings of 200 epochs of 1.28 million images, 1.1e19",
        "paper: OvSW 65.5 % top-1; peers: ReCU 65.1, AdaBin 66.4 (published). Ours: not run.",
        f"authors' code: 200 epochs, {_RULES}, {_AUTHORS}, initial weights. "
        "Ours: 5 epochs of warm-up, known of theirs for ResNet18 only; "
        "crops of 224 pixels, of 256 in the test, the usual ones.",
        "--out runs/imagenet-resnet34    # again to resume",
        network="imagenet-resnet34",
    ),
    "imagenet-resnet34-teacher": _recipe(
        "A real-valued ResNet34 on ImageNet, for binary networks to learn from.",
        "90 epochs of 1.28 million images, 2.5e18",
        "paper: none; ours: not run. The network is the binary one with real convolutions and ReLU "
        "(a skip around every convolution), so do not expect exactly the numbers of the usual "
        "ResNet34.",
        "ours: SGD, 90 epochs, ReLU, which are usual for real-valued ResNets. The rest as in "
        f"imagenet-resnet34, from the authors' code for binary networks: {_AUTHORS}; 5 epochs of "
        "warm-up.",
        "--out runs/imagenet-teacher",
        network="imagenet-resnet34",
        binary="none",
        optimizers=("sgd",),
        epochs=90,
    ),
    "imagenet-resnet18-step1": _recipe(
        "First of two steps: ResNet18 on ImageNet with binary activations and real weights.",
        "120 epochs of 1.28 million images, 1.7e18",
        "paper: none for the first step; ours: not run.",
        "ours: two steps of 120 epochs, with SGD; Real-to-Bin and ReActNet, where two steps come "
        "from, use Adam. The rest as in imagenet-resnet18, from the authors' code for one step: "
        f"5 epochs of warm-up, {_AUTHORS}, initial weights.",
        "--out runs/imagenet-resnet18-step1",
        "With a teacher (imagenet-resnet34-teacher, or any run of your own) also "
        "--teacher runs/imagenet-teacher. imagenet-resnet18-step2 continues from there.",
        binary="activations",
        optimizers=("sgd",),
        epochs=120,
    ),
    "imagenet-resnet18-step2": _recipe(
        "Second of two steps: ResNet18 on ImageNet, its weights binary too, SGD and OvSW.",
        "2 trainings of 120 epochs of 1.28 million images, 3.3e18",
        "paper: its table is not at hand; ReCU and AdaBin, peers, reach 66.4 in two steps "
        "(published). Ours: not run.",
        "ours: 120 epochs, no warm-up, since the weights are trained already. The rest as in "
        f"imagenet-resnet18, from the authors' code for one step: {_RULES}, {_AUTHORS}.",
        "--out runs/imagenet-resnet18-step2",
        "Starts from runs/imagenet-resnet18-step1 (--start names another run); with a teacher "
        "also --teacher runs/imagenet-teacher.",
        start=Path("runs/imagenet-resnet18-step1"),
        epochs=120,
        warmup_epochs=0,
    ),
}
