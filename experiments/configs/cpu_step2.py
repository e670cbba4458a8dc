"""Second of two steps at CPU scale: the weights binary too, SGD and OvSW.

    python -m experiments.train cpu-step2 --out runs/cpu-step2

starts from runs/cpu-step1 (--start names another run); with a teacher also
--teacher runs/cpu-teacher.

Data: 8,000 of CIFAR-10's training images, all 10,000 test images.
Cost: 6 trainings of 20 epochs; 5 minutes on two CPU cores that had other work too.
Expected: results/cpu/two-step/README.md.
Hyperparameters: see cpu.py; 20 epochs and no warm-up are ours.
"""

import dataclasses
from pathlib import Path

from experiments.configs.cpu import base

config = dataclasses.replace(base, start=Path("runs/cpu-step1"), epochs=20, warmup_epochs=0)
