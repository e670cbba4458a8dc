"""Six settings of every optimizer, judged on held-out training images.

    python -m experiments.train tuning

Data: 8,000 of CIFAR-10's training images, 2,000 others to choose by; the test split is not used.
Cost: 42 trainings; 8 minutes on two CPU cores that had other work too.
Expected: results/README.md.
Hyperparameters: see cpu.py.
"""

import dataclasses

from experiments.configs.cpu import base

# The same budget for each: six settings of its one or two most important numbers, one seed that
# no other study uses.
config = dataclasses.replace(
    base,
    seeds=(100,),
    held_out=2_000,
    grids=(
        "optimizer=sgd learning_rate=0.03,0.1,0.3,1,3,10",
        "optimizer=adam adam_learning_rate=0.0003,0.001,0.003,0.01,0.03,0.1",
        "optimizer=lars eta=0.01,0.02,0.04,0.08,0.16,0.32",
        "optimizer=bop bop_threshold=0.00001,0.0001,0.001 bop_adaptivity=0.001,0.01",
        "optimizer=ags lam=0.01,0.02,0.04,0.08,0.16,0.32",
        "optimizer=sad tau=0.0001,0.0003,0.0009,0.003,0.009,0.03",
        "optimizer=ovsw lam=0.02,0.04,0.08 tau=0.0009,0.009",
    ),
    adam_learning_rate=0.01,  # of Bop's real-valued parameters, as in Helwegen et al. 2019
)
