"""Recipes by name: the default job, then studies on a CPU, then the paper's scale."""

from experiments.configs import (
    cifar10_resnet18,
    cifar10_resnet20,
    cifar10_resnet20_short,
    comparison,
    digits,
    gamma,
    gamma_full,
    horizon,
    lam_tau,
    lars_ags,
    lars_ags_full,
    long,
    rules,
    tuning,
)
from experiments.configs.config import Config

RECIPES: dict[str, Config] = {
    "digits": digits.config,
    "cifar10-resnet20-short": cifar10_resnet20_short.config,
    "tuning": tuning.config,
    "comparison": comparison.config,
    "long": long.config,
    "rules": rules.config,
    "lam-tau": lam_tau.config,
    "horizon": horizon.config,
    "gamma": gamma.config,
    "lars-ags": lars_ags.config,
    "gamma-full": gamma_full.config,
    "lars-ags-full": lars_ags_full.config,
    "cifar10-resnet20": cifar10_resnet20.config,
    "cifar10-resnet18": cifar10_resnet18.config,
}

__all__ = ["RECIPES", "Config"]
