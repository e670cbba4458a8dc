"""The C of frozen networks on other compilers and processors: no warning, the same bits."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import c_paths
import jax.numpy as jnp
import numpy as np
import pytest
from c_paths import STRICT
from flax import nnx
from frozen_networks import exact, images, same

import ovsw_jax as ovsw

pytestmark = pytest.mark.long
BOARD = Path(__file__).parent.parent / "examples" / "cortex_m"
INSTALL = "tests/deploy_tools.sh installs it"


class Digits(nnx.Module):
    """A network of 8x8 images that fits a micro:bit."""

    def __init__(self):
        rngs = nnx.Rngs(0)
        self.conv = nnx.Conv(1, 16, (3, 3), rngs=rngs)
        self.norm = ovsw.nn.BatchNorm(16, rngs=rngs)
        self.block = ovsw.models.BasicBlock(16, 16, rngs=rngs)
        self.down = ovsw.nn.BinaryConv(16, 40, (3, 3), strides=2, scale="learned", rngs=rngs)
        self.prelu = ovsw.nn.PReLU(40, rngs=rngs)
        self.head = nnx.Linear(40, 10, rngs=rngs)

    def __call__(self, x):
        x = self.block(self.norm(self.conv(x)))
        return self.head(self.prelu(self.down(x)).mean((1, 2)))


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """Folder of the C of a network, inputs, and the outputs under JAX."""
    model, x = exact(Digits()), images((4, 8, 8, 1))
    frozen = ovsw.deploy.freeze(model, x.shape)
    folder = tmp_path_factory.mktemp("digits")
    frozen.to_c(folder)
    want = np.asarray(nnx.jit(lambda m, x: m(x))(model, jnp.asarray(x)))
    numbers = "},\n    {".join(", ".join(f"{v}f" for v in row) for row in x.reshape(4, -1).tolist())
    (folder / "images.h").write_text(
        "typedef float number;\n#define IMAGES 4\n"
        f"static const number images[IMAGES][64] = {{\n    {{{numbers}}}}};\n"
    )
    for file in BOARD.iterdir():
        shutil.copy(file, folder / file.name)
    return folder, want


def need(*tools):
    for tool in tools:
        if shutil.which(tool) is None:
            pytest.skip(f"there is no {tool}: {INSTALL}")


def run(*command, cwd):
    made = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300)
    assert made.returncode == 0, made.stdout + made.stderr
    return made.stdout


def floats(text):
    """Numbers whose bits are hexadecimal digits, one row a line."""
    rows = [[int(word, 16) for word in line.split()] for line in text.splitlines()]
    return np.array(rows, np.uint32).view(np.float32)


HOSTED = "void print(const char *text) { fputs(text, stdout); }"


def hosted(folder, compiler, *flags, before=()):
    """The outputs of the program of the boards under an operating system."""
    (folder / "hosted.c").write_text(f'#include <stdio.h>\n#include "startup.h"\n{HOSTED}\n')
    sources = ["main.c", "hosted.c", "network.c"]
    run(compiler, *STRICT, *flags, *sources, "-o", "hosted", "-lm", cwd=folder)
    return floats(run(*before, "./hosted", cwd=folder))


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
@pytest.mark.parametrize("level", ["-O0", "-O3"])
def test_no_warning_and_the_same_bits(compiler, level, digits):
    need(compiler)
    folder, want = digits
    assert same(want, hosted(folder, compiler, level))


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
@pytest.mark.parametrize("path", c_paths.PATHS)
def test_every_path_compiles_alone(compiler, path, digits):
    need(compiler)
    if path == "neon":
        pytest.skip("it is for 64-bit Arm, where another test runs it")
    flags = (*STRICT, "-O2", f"-DOVSW_PATH={c_paths.PATHS[path]}")
    run(compiler, *flags, "-c", "network.c", "-o", "alone.o", cwd=digits[0])


@pytest.mark.parametrize("path", ["portable", "avx2", "avx512bw", "avx512"])
def test_sanitizers_find_nothing(path, digits):
    need("gcc")
    if not _has(path):
        pytest.skip(f"this processor has no path {path}")
    folder, want = digits
    flags = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
    got = hosted(folder, "gcc", *flags, f"-DOVSW_PATH={c_paths.PATHS[path]}")
    assert same(want, got)


def _has(path):
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    name = {"portable": "", "avx512": "avx512_vpopcntdq"}.get(path, path)
    return name in flags


def test_threads_give_the_same_bits(digits):
    need("gcc")
    folder, want = digits
    assert same(want, hosted(folder, "gcc", "-O2", "-fopenmp", "-DNETWORK_THREADS=3"))


def test_cmake_builds_it(tmp_path):
    need("cmake")
    frozen = ovsw.deploy.freeze(ovsw.nn.BinaryDense(8, 3, rngs=nnx.Rngs(0)), (1, 8))
    frozen.to_c(tmp_path)
    run("cmake", "-S", ".", "-B", "build", "-DCMAKE_C_FLAGS=-Werror", cwd=tmp_path)
    run("cmake", "--build", "build", cwd=tmp_path)
    (tmp_path / "image").write_bytes(np.ones(8, np.float32).tobytes())
    assert len(run("build/network", "image", cwd=tmp_path).split()) == 4  # outputs, and the class


@pytest.mark.parametrize("flags", [("-O2",), ("-O2", "-DOVSW_PATH=1")], ids=["neon", "portable"])
def test_64_bit_arm(flags, digits):
    need("aarch64-linux-gnu-gcc", "qemu-aarch64")
    folder, want = digits
    got = hosted(folder, "aarch64-linux-gnu-gcc", "-static", *flags, before=["qemu-aarch64"])
    assert same(want, got)


@pytest.mark.parametrize(
    ("machine", "flags"),
    [
        ("microbit", ["-mcpu=cortex-m0"]),
        ("mps2-an386", ["-mcpu=cortex-m4", "-mfloat-abi=hard"]),
        ("mps3-an547", ["-mcpu=cortex-m55", "-mfloat-abi=hard"]),
    ],
    ids=["M0", "M4", "M55"],
)
def test_microcontrollers(machine, flags, digits):
    need("arm-none-eabi-gcc", "qemu-system-arm")
    folder, want = digits
    sources = ["startup.c", "main.c", "network.c"]
    link = ["-nostartfiles", "-Wl,--gc-sections", "-T", "link.ld", "-o", "board.elf"]
    target = [*flags, "-mthumb", "-Os", "-ffunction-sections", "-fdata-sections"]
    run("arm-none-eabi-gcc", *STRICT, *target, *sources, *link, cwd=folder)
    options = [
        "-display",
        "none",
        "-monitor",
        "none",
        "-serial",
        "none",
        "-chardev",
        "stdio,id=out",
    ]
    options += ["-semihosting-config", "enable=on,target=native,chardev=out"]
    said = run("qemu-system-arm", "-M", machine, *options, "-kernel", "board.elf", cwd=folder)
    assert same(want, floats(said))


@pytest.mark.parametrize("more", [[], ["--integer"]], ids=["float", "integer"])
def test_the_example_trains_and_runs_on_a_board_or_says_why_not(more, tmp_path):
    command = [sys.executable, BOARD.parent / "microcontroller.py", "--folder", tmp_path, *more]
    said = run(*command, "--steps", "150", cwd=BOARD.parent.parent)
    if not (shutil.which("arm-none-eabi-gcc") and shutil.which("qemu-system-arm")):
        assert "not run on a Cortex-M0" in said
        return
    accuracies = [float(p) for p in re.findall(r"test accuracy ([\d.]+)%", said)]
    (agreeing,) = re.findall(r"same digit as JAX for ([\d.]+)%", said)
    assert accuracies[0] > 70
    assert accuracies[0] - accuracies[1] <= 0.5
    assert float(agreeing) >= (99 if more else 99.9)


FLOAT_ROUTINES = re.compile(r"U (__aeabi_(?:f|d|i2|ui2|l2|ul2|cf|cd|h2)\w*|__\w*[sd]f\w*)")


def test_c_with_integers_alone_calls_no_float_routine(tmp_path):
    need("arm-none-eabi-gcc")
    model, x = exact(Digits()), images((4, 8, 8, 1))
    frozen = ovsw.deploy.freeze(
        model, x.shape, preprocessing=ovsw.deploy.Preprocessing((0.5,), (0.25,))
    )
    frozen.to_c(tmp_path, name="floats")
    frozen.to_c(tmp_path, name="integers", integer=True, calibration=x)
    called = {}
    for name in ("floats", "integers"):
        flags = [*STRICT, "-mcpu=cortex-m0", "-mthumb", "-Os", "-c"]
        run("arm-none-eabi-gcc", *flags, f"{name}.c", "-o", f"{name}.o", cwd=tmp_path)
        called[name] = FLOAT_ROUTINES.findall(run("arm-none-eabi-nm", f"{name}.o", cwd=tmp_path))
    assert "__aeabi_fmul" in called["floats"]
    assert called["integers"] == []
