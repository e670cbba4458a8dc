"""OvSW over lam and tau; 0 switches a rule off.

    python -m experiments.train lam-tau

Data: 8,000 of CIFAR-10's training images, all 10,000 test images.
Cost: 48 trainings; 13 minutes on two CPU cores that had other work too.
Expected: results/README.md.
Hyperparameters: see cpu.py.
"""

import dataclasses

from experiments.configs.cpu import base

config = dataclasses.replace(
    base, grids=("optimizer=ovsw lam=0,0.01,0.04,0.16 tau=0,0.0009,0.009,0.09",)
)
