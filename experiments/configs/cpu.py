"""What the studies at CPU scale share: a small network on part of CIFAR, and short runs.

8,000 images a class-balanced subset, 16-32-64 channels on 8x8 maps, 125 steps an epoch. Weight
decay, momentum, learning rate, lam, tau, mu, sigma and the schedule are those of the authors'
code for CIFAR; network, subset, batch, epochs and one epoch of warm-up are ours.
"""

from experiments.configs.config import Config

base = Config(
    data="cifar10",
    train_images=8_000,
    augment=True,
    network="tiny",
    seeds=(0, 1, 2),
    epochs=10,
    evaluate_every=2,
    batch_size=64,
    warmup_epochs=1,
)
