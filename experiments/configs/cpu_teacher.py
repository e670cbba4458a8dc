"""A real-valued network at CPU scale, for binary networks to learn from.

    python -m experiments.train cpu-teacher --out runs/cpu-teacher

Data: 8,000 of CIFAR-10's training images, all 10,000 test images.
Cost: a training of 20 epochs; 1 minute on two CPU cores that had other work too.
Expected: results/cpu/two-step/README.md.
Hyperparameters: see cpu.py; SGD, ReLU and 20 epochs are ours.
"""

import dataclasses

from experiments.configs.cpu import base

config = dataclasses.replace(base, binary="none", optimizers=("sgd",), seeds=(0,), epochs=20)
