"""What the recipes for ImageNet share; their own pages say where each number comes from."""

from experiments.configs.config import Config

base = Config(
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
