"""Trains a binary network on 8x8 images of digits, and runs it on a Cortex-M0 as C.

python examples/microcontroller.py [--integer] [--folder FOLDER] [--steps STEPS]

Training and C need scikit-learn (the extra `experiments`). The rest needs arm-none-eabi-gcc and
qemu-system-arm, which tests/deploy_tools.sh installs on Debian; without them it says so and ends.
The emulated board is a BBC micro:bit: 256 KiB of flash, 16 KiB of memory, no floating-point unit.
"""

import argparse
import re
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from sklearn.datasets import load_digits

import ovsw_jax as ovsw

BOARD = Path(__file__).parent / "cortex_m"
TRAINING = 1500  # images; the others are for the test
# What a pixel from 0 to 16 is in the data set is one from 0 to 255 in the C.
PREPROCESSING = ovsw.deploy.Preprocessing(mean=(0.3,), std=(0.35,))


class Network(nnx.Module):
    """A real convolution, two binary ones with a skip, a real layer at the end."""

    def __init__(self, rngs: nnx.Rngs):
        """With parameters that `rngs` draws."""
        self.conv = nnx.Conv(1, 16, (3, 3), use_bias=False, rngs=rngs)
        self.norm = ovsw.nn.BatchNorm(16, rngs=rngs)
        self.block = ovsw.models.BasicBlock(16, 32, strides=2, rngs=rngs)
        self.head = nnx.Linear(32, 10, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Logits (batch, 10) of (batch, 8, 8, 1)."""
        x = ovsw.nn.hardtanh(self.norm(self.conv(x)))
        return self.head(self.block(x).mean((1, 2)))


def pixels_and_labels() -> tuple[np.ndarray, np.ndarray]:
    """All images, uint8 (images, 8, 8, 1), and their digits."""
    data = load_digits()
    return np.round(data.images[..., None] * (255 / 16)).astype(np.uint8), data.target


def preprocessed(pixels: np.ndarray) -> np.ndarray:
    """What the network takes, float32."""
    mean, std = (np.float32(v[0]) for v in (PREPROCESSING.mean, PREPROCESSING.std))
    return (pixels.astype(np.float32) / np.float32(255) - mean) / std


def train(pixels: np.ndarray, labels: np.ndarray, steps: int) -> Network:
    """A network trained by OvSW's SGD."""
    model = Network(nnx.Rngs(0))
    schedule = optax.cosine_decay_schedule(0.1, steps)
    optimizer = nnx.Optimizer(model, ovsw.ovsw_sgd(schedule, weight_decay=5e-4), wrt=nnx.Param)

    @nnx.jit
    def step(model: Network, optimizer: nnx.Optimizer[Network], x: jax.Array, y: jax.Array) -> None:
        def loss(model: Network) -> jax.Array:
            return optax.softmax_cross_entropy_with_integer_labels(model(x), y).mean()

        optimizer.update(model, nnx.grad(loss)(model))

    x, order = preprocessed(pixels), np.random.default_rng(0)
    for _ in range(steps):
        batch = order.integers(0, len(x), 128)
        step(model, optimizer, jnp.asarray(x[batch]), jnp.asarray(labels[batch]))
    return model


def bits(folder: Path, of: str) -> int:
    """Of the integers that are input or output, how many are behind the point."""
    found = re.search(rf"NETWORK_{of}_BITS (-?\d+)", (folder / "network.h").read_text())
    assert found is not None
    return int(found[1])


def write_images(folder: Path, x: np.ndarray, integer: bool) -> None:
    """Images as constants of C."""
    if integer:
        x = np.rint(x * 2.0 ** bits(folder, "INPUT")).astype(np.int16)
    kind, suffix = ("short", "") if integer else ("float", "f")
    rows = (", ".join(f"{v}{suffix}" for v in image.ravel().tolist()) for image in x)
    numbers = ",\n    ".join(f"{{{row}}}" for row in rows)
    (folder / "images.h").write_text(
        f"typedef {kind} number;\n#define IMAGES {len(x)}\n"
        f"static const number images[IMAGES][{x[0].size}] = {{\n    {numbers}}};\n"
    )


def run_on_the_board(folder: Path, integer: bool) -> np.ndarray:
    """The outputs that the emulated board prints, one row an image."""
    for file in BOARD.iterdir():
        shutil.copy(file, folder / file.name)
    flags = "-std=c99 -ffp-contract=off -Os -mcpu=cortex-m0 -mthumb -ffunction-sections"
    sources = ["startup.c", "main.c", "network.c"]
    link = "-fdata-sections -Wl,--gc-sections -nostartfiles -T link.ld -o board.elf"
    compiler = ["arm-none-eabi-gcc", *shlex.split(flags), *sources, *shlex.split(link)]
    subprocess.run(compiler, cwd=folder, check=True)
    subprocess.run(["arm-none-eabi-size", "board.elf"], cwd=folder, check=True)
    emulator = "qemu-system-arm -M microbit -display none -monitor none -serial none"
    semihosting = "-chardev stdio,id=out -semihosting-config enable=on,target=native,chardev=out"
    command = [*shlex.split(f"{emulator} {semihosting}"), "-kernel", "board.elf"]
    said = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout
    rows = [[int(word, 16) for word in line.split()] for line in said.splitlines()]
    if integer:
        return np.array(rows, np.uint16).view(np.int16) / 2.0 ** bits(folder, "OUTPUT")
    return np.array(rows, np.uint32).view(np.float32)


def main() -> None:
    """Trains, freezes, writes C, and compares the board with JAX."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, help="for the C (default: a temporary one)")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--integer", action="store_true", help="C without a single float")
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp())

    pixels, labels = pixels_and_labels()
    model = train(pixels[:TRAINING], labels[:TRAINING], options.steps)
    names = [str(digit) for digit in range(10)]
    frozen = ovsw.deploy.freeze(model, (1, 8, 8, 1), classes=names, preprocessing=PREPROCESSING)
    x, y = preprocessed(pixels[TRAINING:]), labels[TRAINING:]
    answers = np.asarray(frozen(x))
    print(f"test accuracy {np.mean(answers.argmax(-1) == y):.1%} on {len(y)} images")

    if options.integer:
        frozen.to_c(folder, integer=True, calibration=preprocessed(pixels[:TRAINING]))
    else:
        frozen.to_c(folder)
    write_images(folder, x, options.integer)
    print(f"the C is in {folder}")
    missing = [t for t in ("arm-none-eabi-gcc", "qemu-system-arm") if shutil.which(t) is None]
    if missing:
        print(f"not run on a Cortex-M0: there is no {missing[0]}; see tests/deploy_tools.sh")
        return
    outputs = run_on_the_board(folder, options.integer)
    print(f"test accuracy {np.mean(outputs.argmax(-1) == y):.1%} on a Cortex-M0, which gives the")
    print(f"same digit as JAX for {np.mean(outputs.argmax(-1) == answers.argmax(-1)):.1%} of them")


if __name__ == "__main__":
    main()
