"""Recipes by name; the first is the default job."""

from experiments.configs import cifar10_resnet20_short, digits
from experiments.configs.config import Config

RECIPES: dict[str, Config] = {
    "digits": digits.config,
    "cifar10-resnet20-short": cifar10_resnet20_short.config,
}

__all__ = ["RECIPES", "Config"]
