"""Recipes by name: the default job, then studies on a CPU, then the paper's scale.

A field that a recipe does not name has its default in `experiments/config/config.py`.
"""

from experiments.config import Config
from experiments.recipes import cifar, cpu_studies, digits, imagenet, paper_studies

_ALL = {
    **digits.RECIPES,
    **cifar.AT_CPU_SCALE,
    **cpu_studies.RECIPES,
    **paper_studies.RECIPES,
    **cifar.RECIPES,
    **imagenet.RECIPES,
}
RECIPES: dict[str, Config] = {name: recipe.config for name, recipe in _ALL.items()}
ABOUT: dict[str, str] = {name: recipe.about(name) for name, recipe in _ALL.items()}

__all__ = ["ABOUT", "RECIPES"]
