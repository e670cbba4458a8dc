"""LARS over eta against AGS over lam, and SGD (Fig. 26).

    python -m experiments.train lars-ags

Data: 8,000 of CIFAR-10's training images, all 10,000 test images.
Cost: 39 trainings; 12 minutes on two CPU cores that had other work too.
Expected: results/README.md.
Hyperparameters: see cpu.py.
"""

import dataclasses

from experiments.configs.cpu import base

config = dataclasses.replace(
    base,
    grids=(
        "optimizer=lars eta=0.01,0.02,0.04,0.08,0.16,0.32",
        "optimizer=ags lam=0.01,0.02,0.04,0.08,0.16,0.32",
        "optimizer=sgd",
    ),
)
