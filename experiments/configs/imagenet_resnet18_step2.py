"""Second of two steps: ResNet18 on ImageNet, its weights binary too, SGD and OvSW.

    python -m experiments.train imagenet-resnet18-step2 --out runs/imagenet-resnet18-step2

starts from runs/imagenet-resnet18-step1 (--start names another run); with a teacher also
--teacher runs/imagenet-teacher.

Data: imagenet2012, prepared for TFDS as array_record; or --data FOLDER of {train,val}/CLASS/FILE.
Cost: not run; 2 trainings of 120 epochs of 1.28 million images, 3.3e18 floating-point
operations in all (two for a multiply-accumulate, three passes), for an accelerator.
Expected: paper: its table is not at hand; ReCU and AdaBin, peers, reach 66.4 in two steps
(published). Ours: not run.
Hyperparameters: ours: 120 epochs, no warm-up, since the weights are trained already. The rest as in
imagenet-resnet18, from the authors' code for one step: batch 512, learning rate 0.1, cosine,
momentum 0.9, weight decay 1e-4 but not of biases and batch norm, lam 0.01, tau 2e-5, mu 0.999,
sigma 1e-4, seed 42, augmentation.
"""

import dataclasses
from pathlib import Path

from experiments.configs.imagenet import base

config = dataclasses.replace(
    base, start=Path("runs/imagenet-resnet18-step1"), epochs=120, warmup_epochs=0
)
