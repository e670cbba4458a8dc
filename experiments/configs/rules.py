"""What each rule does: SGD, + AGS, + SAD, both.

    python -m experiments.train rules

Data: 8,000 of CIFAR-10's training images, all 10,000 test images.
Cost: 16 trainings; 6 minutes on two CPU cores that had other work too.
Expected: results/README.md.
Hyperparameters: see cpu.py.
"""

import dataclasses

from experiments.configs.cpu import base

config = dataclasses.replace(base, optimizers=("sgd", "ags", "sad", "ovsw"), seeds=(0, 1, 2, 3))
