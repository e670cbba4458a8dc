"""ResNet20 on part of CIFAR-10, at a budget for two CPU cores.

    python -m experiments.train cifar10-resnet20-short

Data: 20,000 of CIFAR-10's training images (2,000 a class), all 10,000 test images.
Cost: 57 minutes on two CPU cores that had other work too.
Expected: SGD 36.8 % top-1 and 90.5 % never flipped, OvSW 46.9 % and 46.6 % (ours, n = 1); see
results/cifar10-resnet20-short/README.md.
Hyperparameters: authors' code for CIFAR, but for 10 epochs, batch 128 and one epoch of warm-up,
which are ours.
"""

from experiments.configs.config import Config

config = Config(
    data="cifar10",
    train_images=20_000,
    augment=True,
    network="resnet20",
    seeds=(0,),
    members_at_once=1,
    epochs=10,
    batch_size=128,
    warmup_epochs=1,
)
