"""Initial weights of another scale and distribution, at the paper's scale (Figs. 8 to 25).

    python -m experiments.train gamma-full --out runs/gamma-full    # again to go on where it was

Data: all of CIFAR-100.
Cost: not run; 96 trainings of 120 epochs of ResNet18, for an accelerator. A part of it:
    --grids "optimizer=sgd,ovsw init=normal init_scale=0.01,1,100"
Expected: paper: top-1 falls sharply at gamma = 1000, smaller gamma helps. Ours: not run.
Hyperparameters: see full.py; gammas and distributions are the paper's.
"""

import dataclasses

from experiments.configs import gamma
from experiments.configs.full import base

config = dataclasses.replace(base, grids=gamma.config.grids)
