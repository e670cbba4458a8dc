"""First of two steps at CPU scale: binary activations, real weights.

    python -m experiments.train cpu-step1 --out runs/cpu-step1

with a teacher also --teacher runs/cpu-teacher. cpu-step2 goes on from there.

Data: 8,000 of CIFAR-10's training images, all 10,000 test images.
Cost: 3 trainings of 20 epochs; 4 minutes on two CPU cores that had other work too.
Expected: results/cpu/two-step/README.md.
Hyperparameters: see cpu.py; SGD and 20 epochs are ours.
"""

import dataclasses

from experiments.configs.cpu import base

config = dataclasses.replace(base, binary="activations", optimizers=("sgd",), epochs=20)
