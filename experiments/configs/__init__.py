"""Recipes by name; the first is the default job, those after it are comparisons and studies."""

from experiments.configs import (
    cifar10_resnet20_short,
    digits,
    gamma,
    horizon,
    lam_tau,
    lars_ags,
    rules,
    tuning,
)
from experiments.configs.config import Config

RECIPES: dict[str, Config] = {
    "digits": digits.config,
    "cifar10-resnet20-short": cifar10_resnet20_short.config,
    "tuning": tuning.config,
    "rules": rules.config,
    "lam-tau": lam_tau.config,
    "horizon": horizon.config,
    "gamma": gamma.config,
    "lars-ags": lars_ags.config,
}

__all__ = ["RECIPES", "Config"]
