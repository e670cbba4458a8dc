"""SGD and OvSW for as many steps as the paper's studies: ResNet20 on all of CIFAR-10.

    python -m experiments.train cifar10-resnet20-60-epochs --seeds 0 --out runs/resnet20-60-seed0

and the same with seeds 1 and 2. 60 epochs in batches of 128 are 23,400 steps, as the paper's 120
epochs in batches of 256.

Data: all 50,000 training images of CIFAR-10, all 10,000 test images.
Cost: 1.8 hours a training on two CPU cores with no other work (estimated from the time of a step).
Expected: what would confirm and what would refute each claim is written down in
results/cifar10-resnet20-60-epochs/README.md, before the first run.
Hyperparameters: authors' code for CIFAR, but for the number of epochs and the batch; nothing is
tuned for this network.
"""

from experiments.configs.config import Config

config = Config(
    data="cifar10",
    augment=True,
    network="resnet20",
    seeds=(0,),
    members_at_once=1,
    epochs=60,
    batch_size=128,
    warmup_epochs=5,
)
