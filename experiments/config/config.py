"""What a training run is: every number that determines it."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal


@dataclasses.dataclass(frozen=True)
class Config:
    """A comparison of optimizers on one network and data set, or a sweep of their settings."""

    data: str = "digits"
    """digits, cifar10, cifar100, or the path of an image folder ROOT/{train,test}/CLASS/FILE (or
    val, or validation, for test; with held_out no test is needed, and ROOT/CLASS/FILE will do);
    with image_size imagenet2012 or an image folder"""
    data_dir: Path | None = None
    """folder of the TFDS data sets; None is TFDS_DATA_DIR, else ~/tensorflow_datasets"""
    train_images: int | None = None
    """train on this many images, spread over the classes as evenly as they allow; None is all"""
    held_out: int = 0
    """if not 0, test on this many training images that are kept from training, of every class, not
    on the test split, which is not needed then: for choosing hyperparameters, and for images that
    have no test split"""
    augment: bool = False
    """random crop after padding by 4 pixels, and random horizontal flip"""
    image_size: int | None = None
    """stream the images from disk, as square crops of this many pixels: random resized crop, flip
    and lighting for training, the centre for the test; None: all images in memory, as they are"""
    workers: int | None = None
    """threads that decode streamed images; None is one a core"""
    network: str = "small"
    """small, tiny, resnet20, resnet18, vgg-small, imagenet-resnet18 or imagenet-resnet34, or your
    own as package.module:Class"""
    binary: Literal["both", "activations", "none"] = "both"
    """what is binary: activations and weights; activations only, the first of two steps; or none,
    a real-valued teacher (with ReLU)"""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """of the forward and backward pass; latent weights and optimizer stay float32"""
    start: Path | None = None
    """run folder with the trained weights to start from, in place of random ones: of the same
    optimizer and seed, or of the first. Real weights start latent ones"""
    teacher: Path | None = None
    """run folder of a teacher whose distribution over the classes is learned"""
    teacher_network: str | None = None
    """with a teacher of your own network that is none of this run's: package.module:Class, again;
    no code is imported because a run folder names it"""
    distillation: float = 1.0
    """with a teacher: its share of the loss; the rest is cross-entropy with the labels"""
    temperature: float = 1.0
    """with a teacher: divides both logits"""
    optimizers: tuple[str, ...] = ("sgd", "ovsw")
    """any of sgd, adam, lars, bop, ags, sad, ovsw; each trains from the same initial weights"""
    grids: tuple[str, ...] = ()
    """what to sweep: each a product such as "optimizer=ovsw lam=0.01,0.04 tau=1e-4,9e-4"; several
    are the union of their points"""
    seeds: tuple[int, ...] = (0, 1, 2)
    """each seed gives initial weights, order of the images and augmentation"""
    members_at_once: int | None = None
    """trainings (seeds, points of the grids) in one compiled step; None is one a device on CPU, and
    on accelerators as many as fit in memory; with streamed images it is one"""
    spread: Literal["members", "batch"] = "members"
    """what devices divide among them: the trainings of a sweep, or each batch; several processes
    always divide each batch"""
    model_devices: int = 1
    """where each batch is divided: devices that also divide large kernels, and all of their
    optimizer state, among them by filters"""
    steps_per_call: int = 1
    """steps in one compiled call, of images in memory: spares small networks the time between
    steps on an accelerator; on a CPU convolutions are slower that way"""
    epochs: int = 30
    """passes over the training images; the last few that fill no batch wait for another pass"""
    max_skipped: int = 10
    """a step whose loss or gradients are not finite is skipped; after this many in a row a training
    is given up: the run stops if it is its only one, else goes on with the others"""
    evaluate_every: int = 1
    """epochs between evaluations; the last epoch always has one"""
    batch_size: int = 64
    """images a step, for each training"""
    init: Literal["normal", "uniform"] = "normal"
    """Kaiming distribution of the initial latent weights"""
    init_scale: float = 1.0
    """gamma: factor of the initial latent weights, also of those that another run has trained"""
    learning_rate: float = 0.1
    """at the top, after warm-up; of SGD with and without rules, and of LARS"""
    momentum: float = 0.9
    """of SGD and LARS"""
    weight_decay: float = 5e-4
    """of SGD and LARS: of all weights with two axes or more"""
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
    """of Adam, and of the real-valued parameters under Bop; no weight decay"""
    bop_threshold: float = 1e-6
    """Bop: the mean gradient that flips a weight"""
    bop_adaptivity: float = 1e-3
    """Bop: share of the newest gradient in that mean"""
    flip_momentum: float = 0.999
    """mu of the flip state"""
    threshold: float = 1e-4
    """sigma of the flip state"""
    checkpoint_seconds: float = 60.0
    """between checkpoints, which are written while the training goes on"""
    flip_state: Literal["packed", "packed8", "ema"] = "packed"
    """two bytes a weight, one, or the literal float32 average"""
    out: Path | None = None
    """run folder; None is a new one under runs/. An unfinished run of the same config goes on"""

    def __post_init__(self) -> None:
        """Checks each value; what the library checks itself is left to it.

        Values that are traced, in the compiled step of a sweep, were checked before.
        """
        for name, rule, holds in self._rules():
            value = getattr(self, name)
            if not _is_traced(value) and not holds(value):
                raise ValueError(f"{name}={value} is out of range: it must be {rule}.")
        self._check_used()

    def _check_used(self) -> None:
        """Raises ValueError where a field would change nothing: it was meant for another run."""
        for name, unused in _OF_TEACHER.items():
            value = getattr(self, name)
            if self.teacher is None and (_is_traced(value) or value != unused):
                raise ValueError(f"{name}={value} has no effect without a teacher: give --teacher.")
        for name in _OF_LATENT:
            value, default = getattr(self, name), getattr(Config, name)
            if self.binary != "both" and (_is_traced(value) or value != default):
                raise ValueError(
                    f"{name}={value} has no effect with binary={self.binary}, which has no latent "
                    f"weights: leave it at {default}, or give --binary both."
                )
        if self.start is not None and self.init != "normal":
            raise ValueError(
                f"init={self.init} has no effect on trained weights: leave --init or --start away."
            )
        if self.workers is not None and self.image_size is None:
            raise ValueError(
                f"workers={self.workers} has no effect on images in memory: give --image-size to "
                "stream them, or leave --workers away."
            )
        if self.model_devices > 1 and self.spread == "members":
            raise ValueError(
                f"model_devices={self.model_devices} has no effect with spread={self.spread}: give "
                "--spread batch, or leave --model-devices away."
            )
        if self.steps_per_call > 1 and self.image_size is not None:
            raise ValueError(
                f"steps_per_call={self.steps_per_call} needs images in memory, and with "
                f"image_size={self.image_size} they are streamed, a batch a call. Leave "
                "--steps-per-call or --image-size away."
            )
        if self.augment and self.image_size is not None:
            raise ValueError(
                f"augment={self.augment} has no effect with image_size={self.image_size}: streamed "
                "images are always cropped and flipped. Leave --augment away."
            )

    def at(self, values: Mapping[str, Any]) -> "Config":
        """This config with other values of some fields."""
        return dataclasses.replace(self, **values)

    def _rules(self) -> tuple[tuple[str, str, Callable[[Any], bool]], ...]:
        return (
            ("epochs", "at least 1", _at_least_one),
            ("batch_size", "at least 1", _at_least_one),
            ("evaluate_every", "at least 1", _at_least_one),
            ("steps_per_call", "at least 1", _at_least_one),
            ("model_devices", "at least 1", _at_least_one),
            ("spread", "members or batch", lambda v: v in ("members", "batch")),
            ("max_skipped", "at least 1", _at_least_one),
            ("checkpoint_seconds", "at least 0", lambda v: v >= 0),
            ("members_at_once", "at least 1", lambda v: v is None or v >= 1),
            ("train_images", "at least 1", lambda v: v is None or v >= 1),
            ("held_out", "at least 0", lambda v: v >= 0),
            ("image_size", "at least 1", lambda v: v is None or v >= 1),
            ("workers", "at least 1", lambda v: v is None or v >= 1),
            ("binary", "both, activations or none", lambda v: v in ("both", "activations", "none")),
            ("dtype", "float32 or bfloat16", lambda v: v in ("float32", "bfloat16")),
            ("distillation", "from 0 to 1", lambda v: 0 <= v <= 1),
            ("temperature", "finite and > 0", _positive),
            ("init", "normal or uniform", lambda v: v in ("normal", "uniform")),
            ("flip_state", "packed, packed8 or ema", lambda v: v in ("packed", "packed8", "ema")),
            ("init_scale", "finite and > 0", _positive),
            ("learning_rate", "finite and > 0", _positive),
            ("adam_learning_rate", "finite and > 0", _positive),
            ("momentum", "at least 0 and below 1", lambda v: 0 <= v < 1),
            ("weight_decay", "finite and at least 0", lambda v: 0 <= v < math.inf),
            (
                "warmup_epochs",
                f"0 to epochs={self.epochs}",
                lambda v: 0 <= v <= self.epochs,
            ),
            ("seeds", "one or more different integers from 0 to 2147483647", _distinct),
            ("optimizers", "one or more different names", _distinct),
        )


# Fields that say nothing without a teacher, and what they then are.
_OF_TEACHER = {"distillation": 1.0, "temperature": 1.0, "teacher_network": None}
# Fields that say nothing without latent weights.
_OF_LATENT = ("init", "init_scale", "flip_momentum", "threshold", "flip_state")


def _is_traced(value: Any) -> bool:
    """Whether it stands for a member's number in a compiled step; this module imports no jax."""
    return hasattr(value, "aval")


def _at_least_one(value: int) -> bool:
    return value >= 1


def _positive(value: float) -> bool:
    return 0 < value < math.inf


def _distinct(values: tuple[int, ...] | tuple[str, ...]) -> bool:
    natural = all(not isinstance(v, int) or 0 <= v < 2**31 for v in values)
    return bool(values) and len(set(values)) == len(values) and natural
