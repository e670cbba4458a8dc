"""ResNet18 on ImageNet in one step, with the recipe of the authors' code, SGD and OvSW.

    python -m experiments.train imagenet-resnet18 --out runs/imagenet-resnet18    # again to go on

Data: imagenet2012, prepared for TFDS as array_record; or --data FOLDER of {train,val}/CLASS/FILE.
Cost: not run; 2 trainings of 200 epochs of 1.28 million images, 5.6e18 floating-point
operations in all (two for a multiply-accumulate, three passes), for an accelerator.
Expected: paper: OvSW 61.6 % top-1; peers: ReCU 61.0, AdaBin 63.1 (published). Ours: not run.
Hyperparameters: authors' code: 200 epochs, batch 512, learning rate 0.1, 5 epochs of warm-up,
cosine, momentum 0.9, weight decay 1e-4 but not of biases and batch norm, lam 0.01, tau 2e-5,
mu 0.999, sigma 1e-4, seed 42, no label smoothing, random resized crop of scale 0.08 to 1.25, flip,
lighting 0.1, initial weights. Ours: crops of 224 pixels, of 256 in the test, the usual ones.
"""

import dataclasses

from experiments.configs.imagenet import base

config = dataclasses.replace(base, network="imagenet-resnet18")
