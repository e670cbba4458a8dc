"""The default job."""

from experiments.config import Config
from experiments.recipes.recipe import Recipe

RECIPES = {
    "digits": Recipe(
        Config(epochs=16, batch_size=64, warmup_epochs=1, members_at_once=3),
        "The default job: SGD and OvSW on scikit-learn's digits.",
        data="1,437 training and 360 test images of 8x8 pixels, embedded in scikit-learn.",
        cost="under a minute on two CPU cores, compilation included.",
        expected="results/digits/README.md.",
        hyperparameters="lam, tau, mu, sigma, momentum, weight decay and learning rate of the "
        "authors' code for CIFAR; epochs, batch size, warm-up and network ours.",
    ),
}
