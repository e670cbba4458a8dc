"""ResNet20 on CIFAR-10 with the full recipe of the authors' code, SGD and OvSW.

    python -m experiments.train cifar10-resnet20 --out runs/cifar10-resnet20    # again to go on

Data: all of CIFAR-10.
Cost: not run; 10 trainings of 600 epochs, for an accelerator.
Expected: paper: its table is not at hand; ReCU, a peer, reaches 87.5 (published). Ours: not run.
Hyperparameters: see full.py; 600 epochs and five seeds as in the authors' code.
"""

import dataclasses

from experiments.configs.full import base

config = dataclasses.replace(
    base, data="cifar10", network="resnet20", epochs=600, seeds=(46, 47, 48, 49, 50)
)
