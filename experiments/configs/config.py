"""What a training run is: every number that determines it."""

import dataclasses
import math
from pathlib import Path
from typing import Literal


@dataclasses.dataclass(frozen=True)
class Config:
    """One comparison of optimizers on one network and data set."""

    data: str = "digits"
    """digits, cifar10, cifar100, or the path of an image folder ROOT/{train,test}/CLASS/FILE"""
    data_dir: Path | None = None
    """folder of the TFDS data sets; None is TFDS_DATA_DIR, else ~/tensorflow_datasets"""
    train_images: int | None = None
    """train on this many images, the same number of each class; None is all"""
    augment: bool = False
    """random crop after padding by 4 pixels, and random horizontal flip"""
    network: str = "small"
    """small, resnet20 or resnet18"""
    optimizers: tuple[str, ...] = ("sgd", "ovsw")
    """any of sgd, ags, sad, ovsw; each trains from the same initial weights"""
    seeds: tuple[int, ...] = (0, 1, 2)
    """each seed gives initial weights, order of the images and augmentation"""
    seeds_at_once: int = 3
    """seeds that train together in one compiled step"""
    epochs: int = 30
    """times that every training image is used"""
    batch_size: int = 64
    """images a step, for each seed"""
    learning_rate: float = 0.1
    """at the top, after warm-up"""
    momentum: float = 0.9
    """of SGD"""
    weight_decay: float = 5e-4
    """of all weights with two axes or more"""
    decay_1d: bool = True
    """also decay biases and batch norm"""
    warmup_epochs: int = 0
    """epochs of linear warm-up before the cosine"""
    lam: float = 0.04
    """AGS: floor of |G_i| / |W_i|"""
    tau: float = 9e-4
    """SAD: decay of silent weights"""
    flip_momentum: float = 0.999
    """mu of the flip state"""
    threshold: float = 1e-4
    """sigma of the flip state"""
    flip_state: Literal["packed", "ema"] = "packed"
    """two bytes a weight, or the literal float32 average"""
    out: Path | None = None
    """run folder; None is a new one under runs/"""

    def __post_init__(self) -> None:
        """Checks each value; what the library checks itself is left to it."""
        for name, rule, holds in (
            ("epochs", "at least 1", self.epochs >= 1),
            ("batch_size", "at least 1", self.batch_size >= 1),
            ("seeds_at_once", "at least 1", self.seeds_at_once >= 1),
            ("train_images", "at least 1", self.train_images is None or self.train_images >= 1),
            ("learning_rate", "finite and > 0", 0 < self.learning_rate < math.inf),
            ("momentum", "at least 0 and below 1", 0 <= self.momentum < 1),
            ("weight_decay", "finite and at least 0", 0 <= self.weight_decay < math.inf),
            ("warmup_epochs", f"0 to epochs={self.epochs}", 0 <= self.warmup_epochs <= self.epochs),
            ("seeds", "one or more different integers >= 0", _distinct(self.seeds)),
            ("optimizers", "one or more different names", _distinct(self.optimizers)),
        ):
            if not holds:
                raise ValueError(
                    f"{name}={getattr(self, name)} is out of range: it must be {rule}."
                )


def _distinct(values: tuple[int, ...] | tuple[str, ...]) -> bool:
    natural = all(not isinstance(v, int) or v >= 0 for v in values)
    return bool(values) and len(set(values)) == len(values) and natural
