"""OvSW over the silence horizon: 10 to 2,302 steps without a flip.

    python -m experiments.train horizon

Data: 8,000 of CIFAR-10's training images, all 10,000 test images.
Cost: 24 trainings; 7 minutes on two CPU cores that had other work too.
Expected: results/README.md.
Hyperparameters: see cpu.py.
"""

import dataclasses

from experiments.configs.cpu import base

# Thresholds of 10, 32, 100, 316, 1,000 and 2,302 steps: ovsw.threshold_for_horizon(0.999, steps).
config = dataclasses.replace(
    base,
    seeds=(0, 1, 2, 3),
    grids=("optimizer=ovsw threshold=0.0009905,0.000969,0.0009052,0.0007293,0.0003679,0.0001",),
)
