"""LARS over eta against AGS over lam, at the paper's scale (Fig. 26).

    python -m experiments.train lars-ags-full --out runs/lars-ags-full    # again to go on

Data: all of CIFAR-100.
Cost: not run; 39 trainings of 120 epochs of ResNet18, for an accelerator.
Expected: paper: the best AGS is above the best LARS. Ours: not run.
Hyperparameters: see full.py; the values of eta and lam are ours.
"""

import dataclasses

from experiments.configs import lars_ags
from experiments.configs.full import base

config = dataclasses.replace(base, grids=lars_ags.config.grids)
