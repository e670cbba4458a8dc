"""All optimizers, each at the best of the six settings that `tuning` tried.

    python -m experiments.train comparison
    python -m experiments.train comparison --data cifar100    # with the settings found on CIFAR-10

Data: 8,000 training images of CIFAR-10 or CIFAR-100, all 10,000 test images.
Cost: 28 trainings; 6 minutes on two CPU cores that had little other work.
Expected: results/README.md.
Hyperparameters: see cpu.py; those below were chosen on held-out images of CIFAR-10, see
results/cpu/tuning. Four seeds, which tuning did not use.
"""

import dataclasses

from experiments.configs.cpu import base

config = dataclasses.replace(
    base,
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
)
