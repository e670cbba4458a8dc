"""ResNet18 on CIFAR-100 with the full recipe of the authors' code, SGD and OvSW.

    python -m experiments.train cifar100-resnet18 --out runs/cifar100-resnet18    # again to go on

Data: all of CIFAR-100.
Cost: not run; 10 trainings of 600 epochs, 1.0e18 floating-point operations in all (two for a
multiply-accumulate, three passes), for an accelerator.
Expected: paper: its table is not at hand, nor a peer's number. Ours: not run.
Hyperparameters: authors' code: 600 epochs, batch 256, learning rate 0.1, 5 epochs of warm-up,
cosine, momentum 0.9, weight decay 5e-4 of batch norm too, lam 0.04 and tau 9e-4 (which they chose
on ResNet20 and CIFAR-10), mu 0.999, sigma 1e-4, seeds 46 to 50, no label smoothing, random crop
and flip, Kaiming normal by fan-in.
Ours: mean and deviation of the channels, those of the training images.
"""

import dataclasses

from experiments.configs.full import base

config = dataclasses.replace(
    base, data="cifar100", network="resnet18", epochs=600, seeds=(46, 47, 48, 49, 50)
)
