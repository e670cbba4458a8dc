"""Initial weights of another scale and distribution: SGD and OvSW (Figs. 8 to 25).

    python -m experiments.train gamma

Data: 8,000 of CIFAR-10's training images, all 10,000 test images.
Cost: 96 trainings; 30 minutes on two CPU cores that had other work too.
Expected: results/README.md.
Hyperparameters: see cpu.py.
"""

import dataclasses

from experiments.configs.cpu import base

config = dataclasses.replace(
    base,
    grids=(
        "optimizer=sgd,ovsw init=normal,uniform init_scale=0.0001,0.001,0.01,0.1,1,10,100,1000",
    ),
)
