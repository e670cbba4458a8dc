"""Studies that two CPU cores can run: a small network on part of CIFAR, and short runs."""

from dataclasses import replace
from pathlib import Path

from experiments.config import Config
from experiments.recipes.recipe import Recipe

# What the studies at CPU scale share: a small network on part of CIFAR, and short runs.
#
# 8,000 images a class-balanced subset, 16-32-64 channels on 8x8 maps, 125 steps an epoch. Weight
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

RECIPES = {
    # The same budget for each: six settings of its one or two most important numbers, one seed that
    # no other study uses.
    "tuning": Recipe(
        replace(
            BASE,
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
        """Six settings of every optimizer, judged on held-out training images.

    python -m experiments.train tuning

Data: 8,000 of CIFAR-10's training images, 2,000 others to choose by; the test split is not used.
Cost: 42 trainings; 8 minutes on two CPU cores that had other work too.
Expected: results/README.md.
Hyperparameters: see BASE.
""",
    ),
    "comparison": Recipe(
        replace(
            BASE,
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
        """All optimizers, each at the best of the six settings that `tuning` tried.

    python -m experiments.train comparison
    python -m experiments.train comparison --data cifar100    # with the settings found on CIFAR-10

Data: 8,000 training images of CIFAR-10 or CIFAR-100, all 10,000 test images.
Cost: 28 trainings; 6 minutes on two CPU cores that had little other work.
Expected: results/README.md.
Hyperparameters: see BASE; those below were chosen on held-out images of CIFAR-10, see
results/cpu/tuning. Four seeds, which tuning did not use.
""",
    ),
    "long": Recipe(
        replace(BASE, seeds=(0, 1, 2, 3), epochs=40, warmup_epochs=5, evaluate_every=4),
        """SGD and OvSW with the authors' hyperparameters, at the longest of the CPU studies.

    python -m experiments.train long

Data: 8,000 of CIFAR-10's training images, all 10,000 test images.
Cost: 8 trainings; 8 minutes on two CPU cores that had other work too.
Expected: results/README.md.
Hyperparameters: see BASE; 40 epochs, 5,000 steps, as many as 26 epochs of all of CIFAR-10 in
batches of 256.
""",
    ),
    "rules": Recipe(
        replace(BASE, optimizers=("sgd", "ags", "sad", "ovsw"), seeds=(0, 1, 2, 3)),
        """What each rule does: SGD, + AGS, + SAD, both.

    python -m experiments.train rules

Data: 8,000 of CIFAR-10's training images, all 10,000 test images.
Cost: 16 trainings; 6 minutes on two CPU cores that had other work too.
Expected: results/README.md.
Hyperparameters: see BASE.
""",
    ),
    "lam-tau": Recipe(
        replace(BASE, grids=("optimizer=ovsw lam=0,0.01,0.04,0.16 tau=0,0.0009,0.009,0.09",)),
        """OvSW over lam and tau; 0 switches a rule off.

    python -m experiments.train lam-tau

Data: 8,000 of CIFAR-10's training images, all 10,000 test images.
Cost: 48 trainings; 13 minutes on two CPU cores that had other work too.
Expected: results/README.md.
Hyperparameters: see BASE.
""",
    ),
    # Thresholds of 10, 32, 100, 316, 1,000 and 2,302 steps, by
    # ovsw.threshold_for_horizon(0.999, steps).
    "horizon": Recipe(
        replace(
            BASE,
            seeds=(0, 1, 2, 3),
            grids=(
                "optimizer=ovsw threshold=0.0009905,0.000969,0.0009052,0.0007293,0.0003679,0.0001",
            ),
        ),
        """OvSW over the silence horizon: 10 to 2,302 steps without a flip.

    python -m experiments.train horizon

Data: 8,000 of CIFAR-10's training images, all 10,000 test images.
Cost: 24 trainings; 7 minutes on two CPU cores that had other work too.
Expected: results/README.md.
Hyperparameters: see BASE.
""",
    ),
    "gamma": Recipe(
        replace(
            BASE,
            grids=(
                "optimizer=sgd,ovsw init=normal,uniform "
                "init_scale=0.0001,0.001,0.01,0.1,1,10,100,1000",
            ),
        ),
        """Initial weights of another scale and distribution: SGD and OvSW (Figs. 8 to 25).

    python -m experiments.train gamma

Data: 8,000 of CIFAR-10's training images, all 10,000 test images.
Cost: 96 trainings; 30 minutes on two CPU cores that had other work too.
Expected: results/README.md.
Hyperparameters: see BASE.
""",
    ),
    "lars-ags": Recipe(
        replace(
            BASE,
            grids=(
                "optimizer=lars eta=0.01,0.02,0.04,0.08,0.16,0.32",
                "optimizer=ags lam=0.01,0.02,0.04,0.08,0.16,0.32",
                "optimizer=sgd",
            ),
        ),
        """LARS over eta against AGS over lam, and SGD (Fig. 26).

    python -m experiments.train lars-ags

Data: 8,000 of CIFAR-10's training images, all 10,000 test images.
Cost: 39 trainings; 12 minutes on two CPU cores that had other work too.
Expected: results/README.md.
Hyperparameters: see BASE.
""",
    ),
    "cpu-teacher": Recipe(
        replace(BASE, binary="none", optimizers=("sgd",), seeds=(0,), epochs=20),
        """A real-valued network at CPU scale, for binary networks to learn from.

    python -m experiments.train cpu-teacher --out runs/cpu-teacher

Data: 8,000 of CIFAR-10's training images, all 10,000 test images.
Cost: a training of 20 epochs; 1 minute on two CPU cores that had other work too.
Expected: results/cpu/two-step/README.md.
Hyperparameters: see BASE; SGD, ReLU and 20 epochs are ours.
""",
    ),
    "cpu-step1": Recipe(
        replace(BASE, binary="activations", optimizers=("sgd",), epochs=20),
        """First of two steps at CPU scale: binary activations, real weights.

    python -m experiments.train cpu-step1 --out runs/cpu-step1

with a teacher also --teacher runs/cpu-teacher. cpu-step2 goes on from there.

Data: 8,000 of CIFAR-10's training images, all 10,000 test images.
Cost: 3 trainings of 20 epochs; 4 minutes on two CPU cores that had other work too.
Expected: results/cpu/two-step/README.md.
Hyperparameters: see BASE; SGD and 20 epochs are ours.
""",
    ),
    "cpu-step2": Recipe(
        replace(BASE, start=Path("runs/cpu-step1"), epochs=20, warmup_epochs=0),
        """Second of two steps at CPU scale: the weights binary too, SGD and OvSW.

    python -m experiments.train cpu-step2 --out runs/cpu-step2

starts from runs/cpu-step1 (--start names another run); with a teacher also
--teacher runs/cpu-teacher.

Data: 8,000 of CIFAR-10's training images, all 10,000 test images.
Cost: 6 trainings of 20 epochs; 5 minutes on two CPU cores that had other work too.
Expected: results/cpu/two-step/README.md.
Hyperparameters: see BASE; 20 epochs and no warm-up are ours.
""",
    ),
}
