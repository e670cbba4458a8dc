"""Studies that two CPU cores can run: a small network on part of CIFAR, and short runs."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from experiments.config import Config
from experiments.recipes.recipe import Recipe

# What all of these studies share.
#
# 8,000 images, a class-balanced subset; 16-32-64 channels on 8x8 maps; 125 steps an epoch. Weight
# decay, momentum, learning rate, lam, tau, mu, sigma and the schedule are those of the authors'
# code for CIFAR; network, subset, batch, epochs and one epoch of warm-up are ours.
BASE = Config(
    data="cifar10",
    train_images=8_000,
    augment=True,
    network="tiny",
    seeds=(0, 1, 2),
    epochs=10,
    evaluate_every=2,
    batch_size=64,
    warmup_epochs=1,
)


def _study(
    title: str,
    cost: str,
    *,
    other_work: str = "other work too",
    data: str = "8,000 of CIFAR-10's training images, all 10,000 test images.",
    expected: str = "docs/results/index.md.",
    ours: str = "",
    options: str = "",
    remark: str = "",
    **changes: Any,
) -> Recipe:
    """`BASE` with some `changes`; `ours` says where their numbers come from."""
    return Recipe(
        replace(BASE, **changes),
        title,
        data,
        f"{cost} on two CPU cores that had {other_work}.",
        expected,
        f"see BASE in experiments/recipes/cpu_studies.py{ours and '; '}{ours}.",
        options,
        remark,
    )


RECIPES = {
    # The same budget for each: six settings of its one or two most important numbers, one seed that
    # no other study uses.
    "tuning": _study(
        "Six settings of every optimizer, judged on held-out training images.",
        "42 trainings; 8 minutes",
        data="8,000 of CIFAR-10's training images, 2,000 others to choose by; the test split is "
        "not used.",
        seeds=(100,),
        held_out=2_000,
        grids=(
            "optimizer=sgd learning_rate=0.03,0.1,0.3,1,3,10",
            "optimizer=adam adam_learning_rate=0.0003,0.001,0.003,0.01,0.03,0.1",
            "optimizer=lars eta=0.01,0.02,0.04,0.08,0.16,0.32",
            "optimizer=bop bop_threshold=0.00001,0.0001,0.001 bop_adaptivity=0.001,0.01",
            "optimizer=ags lam=0.01,0.02,0.04,0.08,0.16,0.32",
            "optimizer=sad tau=0.0001,0.0003,0.0009,0.003,0.009,0.03",
            "optimizer=ovsw lam=0.02,0.04,0.08 tau=0.0009,0.009",
        ),
        adam_learning_rate=0.01,  # of Bop's real-valued parameters, as in Helwegen et al. 2019
    ),
    "comparison": _study(
        "All optimizers, each at the best of the six settings that `tuning` tried.",
        "28 trainings; 6 minutes",
        other_work="little other work",
        data="8,000 training images of CIFAR-10, all 10,000 test images.",
        ours="the settings in the grids were chosen on held-out images of CIFAR-10, see "
        "results/cpu/tuning; four seeds, which tuning did not use",
        remark="With --data cifar100: on CIFAR-100, with the settings found on CIFAR-10.",
        seeds=(0, 1, 2, 3),
        grids=(
            "optimizer=sgd learning_rate=0.3",
            "optimizer=adam adam_learning_rate=0.01",
            "optimizer=lars eta=0.08",
            "optimizer=bop bop_threshold=0.00001 bop_adaptivity=0.001",
            "optimizer=ags lam=0.16",
            "optimizer=sad tau=0.009",
            "optimizer=ovsw lam=0.08 tau=0.009",
        ),
        adam_learning_rate=0.01,  # of Bop's real-valued parameters
    ),
    "long": _study(
        "SGD and OvSW with the authors' hyperparameters, at the longest of the CPU studies.",
        "8 trainings; 8 minutes",
        ours="40 epochs, 5,000 steps, as many as 26 epochs of all of CIFAR-10 in batches of 256",
        seeds=(0, 1, 2, 3),
        epochs=40,
        warmup_epochs=5,
        evaluate_every=4,
    ),
    "rules": _study(
        "What each rule does: SGD, + AGS, + SAD, both.",
        "16 trainings; 6 minutes",
        optimizers=("sgd", "ags", "sad", "ovsw"),
        seeds=(0, 1, 2, 3),
    ),
    "lam-tau": _study(
        "OvSW over lam and tau; 0 switches a rule off.",
        "48 trainings; 13 minutes",
        grids=("optimizer=ovsw lam=0,0.01,0.04,0.16 tau=0,0.0009,0.009,0.09",),
    ),
    # Thresholds of 10, 32, 100, 316, 1,000 and 2,302 steps, by
    # ovsw.threshold_for_horizon(0.999, steps).
    "horizon": _study(
        "OvSW over the silence horizon: 10 to 2,302 steps without a flip.",
        "24 trainings; 7 minutes",
        seeds=(0, 1, 2, 3),
        grids=("optimizer=ovsw threshold=0.0009905,0.000969,0.0009052,0.0007293,0.0003679,0.0001",),
    ),
    "gamma": _study(
        "Initial weights of another scale and distribution: SGD and OvSW (Figs. 8 to 25).",
        "96 trainings; 30 minutes",
        grids=(
            "optimizer=sgd,ovsw init=normal,uniform init_scale=0.0001,0.001,0.01,0.1,1,10,100,1000",
        ),
    ),
    "lars-ags": _study(
        "LARS over eta against AGS over lam, and SGD (Fig. 26).",
        "39 trainings; 12 minutes",
        grids=(
            "optimizer=lars eta=0.01,0.02,0.04,0.08,0.16,0.32",
            "optimizer=ags lam=0.01,0.02,0.04,0.08,0.16,0.32",
            "optimizer=sgd",
        ),
    ),
    "cpu-teacher": _study(
        "A real-valued network at CPU scale, for binary networks to learn from.",
        "a training of 20 epochs; 1 minute",
        expected="results/cpu/two-step/README.md.",
        ours="SGD, ReLU and 20 epochs are ours",
        options="--out runs/cpu-teacher",
        binary="none",
        optimizers=("sgd",),
        seeds=(0,),
        epochs=20,
    ),
    "cpu-step1": _study(
        "First of two steps at CPU scale: binary activations, real weights.",
        "3 trainings of 20 epochs; 4 minutes",
        expected="results/cpu/two-step/README.md.",
        ours="SGD and 20 epochs are ours",
        options="--out runs/cpu-step1",
        remark="With a teacher also --teacher runs/cpu-teacher. cpu-step2 continues from there.",
        binary="activations",
        optimizers=("sgd",),
        epochs=20,
    ),
    "cpu-step2": _study(
        "Second of two steps at CPU scale: the weights binary too, SGD and OvSW.",
        "6 trainings of 20 epochs; 5 minutes",
        expected="results/cpu/two-step/README.md.",
        ours="20 epochs and no warm-up are ours",
        options="--out runs/cpu-step2",
        remark="Starts from runs/cpu-step1 (--start names another run); with a teacher also "
        "--teacher runs/cpu-teacher.",
        start=Path("runs/cpu-step1"),
        epochs=20,
        warmup_epochs=0,
    ),
}
