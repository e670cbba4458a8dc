"""What a training run is: every number that determines it."""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

_Rule = tuple[str, Callable[[Any], bool]]  # what a value must be, and whether it is


@dataclasses.dataclass(frozen=True)
class Config:
    """A comparison of optimizers on one network and data set, or a sweep of their settings."""

    data: str = "digits"
    """digits, cifar10, cifar100, or the path of an image folder ROOT/{train,test}/CLASS/FILE (or
    val, or validation, for test; with held_out no test split is needed, and ROOT/CLASS/FILE works
    too); with image_size imagenet2012 or an image folder"""
    data_dir: Path | None = None
    """folder of the TFDS data sets; None is TFDS_DATA_DIR, else ~/tensorflow_datasets"""
    train_images: int | None = None
    """train on this many images, spread over the classes as evenly as possible; None is all"""
    held_out: int = 0
    """if not 0, keep this many training images, of every class, from training and test on them
    instead of on the test split, which need not exist: for choosing hyperparameters"""
    augment: bool = False
    """random crop after padding by 4 pixels, and random horizontal flip"""
    image_size: int | None = None
    """stream the images from disk, as square crops of this many pixels: random resized crop, flip
    and lighting for training, the centre for the test; None keeps all images in memory"""
    workers: int | None = None
    """threads that decode streamed images; None is one per core"""
    network: str = "small"
    """a name of experiments/training/networks.py, such as small, resnet20, resnet18, vgg-small or
    imagenet-resnet18, or your own as package.module:Class"""
    binary: Literal["both", "activations", "none"] = "both"
    """both: activations and weights are binary; activations: only they are, the first of two steps;
    none: a real-valued network with ReLU, for a teacher"""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """dtype of the forward and backward pass; latent weights and optimizer stay float32"""
    start: Path | None = None
    """run folder whose trained weights replace the random initial ones: those of the same optimizer
    and seed, else of its first. Real weights become latent weights. A head for other classes is
    initialised anew"""
    teacher: Path | None = None
    """run folder of a teacher; the network learns its distribution over the classes"""
    teacher_network: str | None = None
    """package.module:Class, if the teacher is a network of your own and not this run's; a run
    folder alone never makes code be imported"""
    distillation: float = 1.0
    """with a teacher: its share of the loss; the rest is cross-entropy with the labels"""
    temperature: float = 1.0
    """with a teacher: divides both logits"""
    optimizers: tuple[str, ...] = ("sgd", "ovsw")
    """any of sgd, adam, lars, bop, ags, sad, ovsw; all start from the same initial weights"""
    grids: tuple[str, ...] = ()
    """what to sweep: each a product such as "optimizer=ovsw lam=0.01,0.04 tau=1e-4,9e-4"; several
    grids are the union of their points"""
    seeds: tuple[int, ...] = (0, 1, 2)
    """a seed determines initial weights, order of the images and augmentation"""
    members_at_once: int | None = None
    """trainings (seeds, points of the grids) in one compiled step; None is one per device on CPU,
    and as many as fit in memory on accelerators; always one with streamed images"""
    spread: Literal["members", "batch"] = "members"
    """what is divided over the devices: the trainings of a sweep, or each batch; several processes
    always divide each batch"""
    model_devices: int = 1
    """with spread=batch: devices that divide large kernels and their optimizer state by filters"""
    fsdp: bool = False
    """with spread=batch: divide large kernels and their optimizer state over all devices"""
    batch_norm_groups: int = 1
    """equal parts of a batch, each normalised by its own statistics; as many as devices, or a
    multiple, and no device waits for another's. The results depend on it, not on the devices"""
    steps_per_call: int = 1
    """steps per compiled call, for images in memory: saves small networks the time between steps on
    an accelerator; on a CPU it makes convolutions slower"""
    epochs: int = 30
    """passes over the training images; images that fill no last batch are left out of an epoch"""
    max_skipped: int = 10
    """a step with a non-finite loss or gradient is skipped; after this many in a row the training
    is given up: a run with only one training stops, others continue with the rest"""
    evaluate_every: int = 1
    """epochs between evaluations; the last epoch is always evaluated"""
    batch_size: int = 64
    """images per step of each training"""
    init: Literal["normal", "uniform"] = "normal"
    """Kaiming distribution of the initial latent weights"""
    init_scale: float = 1.0
    """gamma: factor of the initial latent weights, also of those from start"""
    learning_rate: float = 0.1
    """peak learning rate, after warm-up, of SGD with and without rules, and of LARS"""
    momentum: float = 0.9
    """momentum of SGD and LARS"""
    weight_decay: float = 5e-4
    """weight decay of SGD and LARS, for all weights with two or more axes"""
    decay_1d: bool = True
    """also decay biases and batch norm"""
    warmup_epochs: int = 0
    """epochs of linear warm-up before the cosine"""
    lam: float = 0.04
    """AGS: floor of |G_i| / |W_i|"""
    tau: float = 9e-4
    """SAD: decay of silent weights"""
    eta: float = 0.01
    """LARS: coefficient of the local learning rate"""
    adam_learning_rate: float = 1e-3
    """learning rate of Adam, and of the real-valued parameters under Bop; no weight decay"""
    bop_threshold: float = 1e-6
    """Bop: the mean gradient that flips a weight"""
    bop_adaptivity: float = 1e-3
    """Bop: share of the newest gradient in that mean"""
    flip_momentum: float = 0.999
    """mu of the flip state"""
    threshold: float = 1e-4
    """sigma of the flip state"""
    checkpoint_seconds: float = 60.0
    """seconds between checkpoints, which are written while the training continues"""
    flip_state: Literal["packed", "packed8", "ema"] = "packed"
    """packed: two bytes per weight; packed8: one; ema: the literal float32 average"""
    out: Path | None = None
    """run folder; None is a new one under runs/. An unfinished run of the same config resumes"""

    def __post_init__(self) -> None:
        """Checks the values that the library does not check itself.

        Traced values, in the compiled step of a sweep, were checked before.
        """
        warmup = (f"0 to epochs={self.epochs}", lambda v: 0 <= v <= self.epochs)
        for name, (rule, holds) in {**_RULES, "warmup_epochs": warmup}.items():
            value = getattr(self, name)
            if not _is_traced(value) and not holds(value):
                raise ValueError(f"{name}={value} is out of range: it must be {rule}.")
        self._check_used()

    def _check_used(self) -> None:
        """Raises ValueError for a field without effect: it was meant for another run."""
        for name, unused in _OF_TEACHER.items():
            value = getattr(self, name)
            if self.teacher is None and (_is_traced(value) or value != unused):
                raise ValueError(f"{name}={value} has no effect without a teacher: give --teacher.")
        for name in _OF_LATENT:
            value, default = getattr(self, name), getattr(Config, name)
            if self.binary != "both" and (_is_traced(value) or value != default):
                raise ValueError(
                    f"{name}={value} has no effect with binary={self.binary}, which has no latent "
                    f"weights: keep it at {default}, or give --binary both."
                )
        if self.start is not None and self.init != "normal":
            raise ValueError(
                f"init={self.init} has no effect on trained weights: omit --init or --start."
            )
        if self.workers is not None and self.image_size is None:
            raise ValueError(
                f"workers={self.workers} has no effect on images in memory: give --image-size to "
                "stream them, or omit --workers."
            )
        if self.model_devices > 1 and self.spread == "members":
            raise ValueError(
                f"model_devices={self.model_devices} has no effect with spread={self.spread}: give "
                "--spread batch, or omit --model-devices."
            )
        if self.fsdp and self.spread == "members":
            raise ValueError(
                f"fsdp={self.fsdp} has no effect with spread={self.spread}: give --spread batch, "
                "or omit --fsdp."
            )
        if self.batch_size % self.batch_norm_groups:
            raise ValueError(
                f"batch_size={self.batch_size} can't be divided into batch_norm_groups="
                f"{self.batch_norm_groups} equal parts: give a --batch-size that is a multiple of "
                "it, or another --batch-norm-groups."
            )
        if self.steps_per_call > 1 and self.image_size is not None:
            raise ValueError(
                f"steps_per_call={self.steps_per_call} needs images in memory, and with "
                f"image_size={self.image_size} they are streamed, a batch per call. Omit "
                "--steps-per-call or --image-size."
            )
        if self.augment and self.image_size is not None:
            raise ValueError(
                f"augment={self.augment} has no effect with image_size={self.image_size}: streamed "
                "images are always cropped and flipped. Omit --augment."
            )

    def at(self, values: Mapping[str, Any]) -> "Config":
        """This config with some fields changed."""
        return dataclasses.replace(self, **values)


# Fields without effect if there is no teacher, and their values then.
_OF_TEACHER = {"distillation": 1.0, "temperature": 1.0, "teacher_network": None}
# Fields without effect if there are no latent weights.
_OF_LATENT = ("init", "init_scale", "flip_momentum", "threshold", "flip_state")


def _is_traced(value: Any) -> bool:
    """Whether it is a member's number in a compiled step; this module imports no jax."""
    return hasattr(value, "aval")


def _distinct(values: tuple[int, ...] | tuple[str, ...]) -> bool:
    natural = all(not isinstance(v, int) or 0 <= v < 2**31 for v in values)
    return bool(values) and len(set(values)) == len(values) and natural


def _at_least(least: int) -> _Rule:
    return f"at least {least}", lambda value: value is None or value >= least


def _choices() -> Iterator[tuple[str, _Rule]]:
    for field in dataclasses.fields(Config):
        if get_origin(field.type) is Literal:
            known = get_args(field.type)
            yield field.name, (f"{', '.join(known[:-1])} or {known[-1]}", known.__contains__)


_POSITIVE: _Rule = ("finite and > 0", lambda value: 0 < value < math.inf)
_RULES: dict[str, _Rule] = {
    **dict(_choices()),
    "epochs": _at_least(1),
    "batch_size": _at_least(1),
    "evaluate_every": _at_least(1),
    "steps_per_call": _at_least(1),
    "model_devices": _at_least(1),
    "batch_norm_groups": _at_least(1),
    "max_skipped": _at_least(1),
    "members_at_once": _at_least(1),
    "train_images": _at_least(1),
    "image_size": _at_least(1),
    "workers": _at_least(1),
    "held_out": _at_least(0),
    "checkpoint_seconds": _at_least(0),
    "distillation": ("from 0 to 1", lambda value: 0 <= value <= 1),
    "temperature": _POSITIVE,
    "init_scale": _POSITIVE,
    "learning_rate": _POSITIVE,
    "adam_learning_rate": _POSITIVE,
    "momentum": ("at least 0 and below 1", lambda value: 0 <= value < 1),
    "weight_decay": ("finite and at least 0", lambda value: 0 <= value < math.inf),
    "seeds": ("one or more different integers from 0 to 2147483647", _distinct),
    "optimizers": ("one or more different names", _distinct),
}
