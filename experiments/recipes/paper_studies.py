"""The studies of Appendix C and D at the paper's scale, for an accelerator."""

from dataclasses import replace

from experiments.config import Config
from experiments.recipes import cpu_studies
from experiments.recipes.recipe import Recipe

# What the studies at the paper's scale share: ResNet18 on CIFAR-100, 120 epochs (Appendix C, D).
#
# Weight decay, momentum, learning rate, batch, lam, tau, mu, sigma, warm-up, schedule and seeds are
# those of the authors' code for CIFAR, the number of epochs the paper's.
BASE = Config(
    data="cifar100",
    augment=True,
    network="resnet18",
    seeds=(46, 47, 48),
    epochs=120,
    batch_size=256,
    warmup_epochs=5,
)

RECIPES = {
    "gamma-full": Recipe(
        replace(BASE, grids=cpu_studies.RECIPES["gamma"].config.grids),
        """Initial weights of another scale and distribution, at the paper's scale (Figs. 8 to 25).

    python -m experiments.train gamma-full --out runs/gamma-full    # again to go on where it was

Data: all of CIFAR-100.
Cost: not run; 96 trainings of 120 epochs of ResNet18, for an accelerator. A part of it:
    --grids "optimizer=sgd,ovsw init=normal init_scale=0.01,1,100"
Expected: paper: top-1 falls sharply at gamma = 1000, smaller gamma helps. Ours: not run.
Hyperparameters: see BASE; gammas and distributions are the paper's.
""",
    ),
    "lars-ags-full": Recipe(
        replace(BASE, grids=cpu_studies.RECIPES["lars-ags"].config.grids),
        """LARS over eta against AGS over lam, at the paper's scale (Fig. 26).

    python -m experiments.train lars-ags-full --out runs/lars-ags-full    # again to go on

Data: all of CIFAR-100.
Cost: not run; 39 trainings of 120 epochs of ResNet18, for an accelerator.
Expected: paper: the best AGS is above the best LARS. Ours: not run.
Hyperparameters: see BASE; the values of eta and lam are ours.
""",
    ),
}
