"""ResNets on ImageNet, in one step and in two."""

from dataclasses import replace
from pathlib import Path

from experiments.config import Config
from experiments.recipes.recipe import Recipe

# What the recipes for ImageNet share; their own pages say where each number comes from.
BASE = Config(
    data="imagenet2012",
    image_size=224,
    network="imagenet-resnet18",
    seeds=(42,),
    epochs=200,
    batch_size=512,
    warmup_epochs=5,
    weight_decay=1e-4,
    decay_1d=False,
    lam=0.01,
    tau=2e-5,
)

RECIPES = {
    "imagenet-resnet18": Recipe(
        replace(BASE, network="imagenet-resnet18"),
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
""",
    ),
    "imagenet-resnet34": Recipe(
        replace(BASE, network="imagenet-resnet34"),
        """ResNet34 on ImageNet in one step, with the recipe of the authors' code, SGD and OvSW.

    python -m experiments.train imagenet-resnet34 --out runs/imagenet-resnet34    # again to go on

Data: imagenet2012, prepared for TFDS as array_record; or --data FOLDER of {train,val}/CLASS/FILE.
Cost: not run; 2 trainings of 200 epochs of 1.28 million images, 1.1e19 floating-point
operations in all (two for a multiply-accumulate, three passes), for an accelerator.
Expected: paper: OvSW 65.5 % top-1; peers: ReCU 65.1, AdaBin 66.4 (published). Ours: not run.
Hyperparameters: authors' code: 200 epochs, batch 512, learning rate 0.1, cosine, momentum 0.9,
weight decay 1e-4 but not of biases and batch norm, lam 0.01, tau 2e-5, mu 0.999, sigma 1e-4, seed
42, no label smoothing, random resized crop of scale 0.08 to 1.25, flip, lighting 0.1, initial
weights. Ours: 5 epochs of warm-up, known of theirs for ResNet18 only; crops of 224 pixels, of 256
in the test, the usual ones.
""",
    ),
    "imagenet-resnet34-teacher": Recipe(
        replace(BASE, network="imagenet-resnet34", binary="none", optimizers=("sgd",), epochs=90),
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
""",
    ),
    "imagenet-resnet18-step1": Recipe(
        replace(BASE, binary="activations", optimizers=("sgd",), epochs=120),
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
""",
    ),
    "imagenet-resnet18-step2": Recipe(
        replace(BASE, start=Path("runs/imagenet-resnet18-step1"), epochs=120, warmup_epochs=0),
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
""",
    ),
}
