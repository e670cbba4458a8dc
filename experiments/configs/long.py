"""SGD and OvSW with the hyperparameters of the authors' code, at the longest of the CPU studies.

    python -m experiments.train long

Data: 8,000 of CIFAR-10's training images, all 10,000 test images.
Cost: 8 trainings; 8 minutes on two CPU cores that had other work too.
Expected: results/README.md.
Hyperparameters: see cpu.py; 40 epochs, 5,000 steps, as many as 26 epochs of all of CIFAR-10 in
batches of 256.
"""

import dataclasses

from experiments.configs.cpu import base

config = dataclasses.replace(base, seeds=(0, 1, 2, 3), epochs=40, warmup_epochs=5, evaluate_every=4)
