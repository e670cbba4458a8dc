"""A real-valued ResNet34 on ImageNet, for binary networks to learn from.

    python -m experiments.train imagenet-resnet34-teacher --out runs/imagenet-teacher

Data: imagenet2012, prepared for TFDS as array_record; or --data FOLDER of {train,val}/CLASS/FILE.
Cost: not run; 90 epochs of 1.28 million images, 2.5e18 floating-point
operations in all (two for a multiply-accumulate, three passes), for an accelerator.
Expected: paper: none; ours: not run. The network is the binary one with real convolutions and ReLU
(a skip around every convolution), so numbers of the usual ResNet34 are not to be expected exactly.
Hyperparameters: ours: SGD, 90 epochs, ReLU, which are usual for real-valued ResNets. The rest as in
imagenet-resnet34, from the authors' code for binary networks: batch 512, learning rate 0.1, 5
epochs of warm-up, cosine, momentum 0.9, weight decay 1e-4 but not of biases and batch norm, seed
42, the augmentation.
"""

import dataclasses

from experiments.configs.imagenet import base

config = dataclasses.replace(
    base, network="imagenet-resnet34", binary="none", optimizers=("sgd",), epochs=90
)
