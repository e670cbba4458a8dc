"""The studies of Appendix C and D at the paper's scale, for an accelerator."""

from dataclasses import replace

from experiments.config import Config
from experiments.recipes import cpu_studies
from experiments.recipes.recipe import Recipe

# What both studies share: ResNet18 on CIFAR-100, 120 epochs (Appendix C, D).
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
_BASE = "see BASE in experiments/recipes/paper_studies.py"

RECIPES = {
    "gamma-full": Recipe(
        replace(BASE, grids=cpu_studies.RECIPES["gamma"].config.grids),
        "Initial weights of another scale and distribution, at the paper's scale (Figs. 8 to 25).",
        data="all of CIFAR-100.",
        cost="not run; 96 trainings of 120 epochs of ResNet18, for an accelerator. A part of it: "
        '--grids "optimizer=sgd,ovsw init=normal init_scale=0.01,1,100".',
        expected="paper: top-1 falls sharply at gamma = 1000, smaller gamma helps. Ours: not run.",
        hyperparameters=f"{_BASE}; gammas and distributions are the paper's.",
        options="--out runs/gamma-full    # again to resume",
    ),
    "lars-ags-full": Recipe(
        replace(BASE, grids=cpu_studies.RECIPES["lars-ags"].config.grids),
        "LARS over eta against AGS over lam, at the paper's scale (Fig. 26).",
        data="all of CIFAR-100.",
        cost="not run; 39 trainings of 120 epochs of ResNet18, for an accelerator.",
        expected="paper: the best AGS is above the best LARS. Ours: not run.",
        hyperparameters=f"{_BASE}; the values of eta and lam are ours.",
        options="--out runs/lars-ags-full    # again to resume",
    ),
}
