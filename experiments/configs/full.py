"""What the studies at the paper's scale share: ResNet18 on CIFAR-100, 120 epochs (Appendix C, D).

Weight decay, momentum, learning rate, batch, lam, tau, mu, sigma, warm-up, schedule and seeds are
those of the authors' code for CIFAR, the number of epochs the paper's.
"""

from experiments.configs.config import Config

base = Config(
    data="cifar100",
    augment=True,
    network="resnet18",
    seeds=(46, 47, 48),
    epochs=120,
    batch_size=256,
    warmup_epochs=5,
)
