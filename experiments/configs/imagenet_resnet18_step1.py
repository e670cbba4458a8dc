"""First of two steps: ResNet18 on ImageNet with binary activations and real weights.

    python -m experiments.train imagenet-resnet18-step1 --out runs/imagenet-resnet18-step1

with a teacher (imagenet-resnet34-teacher, or any run of its own) also
--teacher runs/imagenet-teacher. imagenet-resnet18-step2 goes on from there.

Data: imagenet2012, prepared for TFDS as array_record; or --data FOLDER of {train,val}/CLASS/FILE.
Cost: not run; 120 epochs of 1.28 million images, 1.7e18 floating-point
operations in all (two for a multiply-accumulate, three passes), for an accelerator.
Expected: paper: none for the first step; ours: not run.
Hyperparameters: ours: two steps of 120 epochs, with SGD; Real-to-Bin and ReActNet, where two steps
come from, use Adam. The rest as in imagenet-resnet18, from the authors' code for one step: batch
512, learning rate 0.1, 5 epochs of warm-up, cosine, momentum 0.9, weight decay 1e-4 but not of
biases and batch norm, seed 42, augmentation, initial weights.
"""

import dataclasses

from experiments.configs.imagenet import base

config = dataclasses.replace(base, binary="activations", optimizers=("sgd",), epochs=120)
