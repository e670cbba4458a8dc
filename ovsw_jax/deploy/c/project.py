"""A folder with the C of a network: source, header, an example and how they are built."""

import math
import os
import re
from pathlib import Path

import numpy as np

from ovsw_jax.deploy.c.amalgamation import source
from ovsw_jax.deploy.c.calibration import calibrated
from ovsw_jax.deploy.c.constants import float_literal
from ovsw_jax.deploy.c.integer_program import IntegerProgram, scaled
from ovsw_jax.deploy.c.lower import lowered
from ovsw_jax.deploy.c.lower_integer import lowered_to_integers
from ovsw_jax.deploy.c.memory import planned
from ovsw_jax.deploy.c.memory_table import memory_table
from ovsw_jax.deploy.c.source import Source, filled
from ovsw_jax.deploy.c.steps import Program, comment
from ovsw_jax.deploy.network import FrozenNetwork
from ovsw_jax.deploy.preprocessing import Preprocessing

_TAKEN = frozenset(  # words of C, and the file main.c
    {
        "auto",
        "break",
        "case",
        "char",
        "const",
        "continue",
        "default",
        "do",
        "double",
        "else",
        "enum",
        "extern",
        "float",
        "for",
        "goto",
        "if",
        "inline",
        "int",
        "long",
        "main",
        "register",
        "restrict",
        "return",
        "short",
        "signed",
        "sizeof",
        "static",
        "struct",
        "switch",
        "typedef",
        "union",
        "unsigned",
        "void",
        "volatile",
        "while",
    }
)


def write_c(
    network: FrozenNetwork,
    folder: str | os.PathLike[str],
    name: str,
    calibration: np.ndarray | None = None,
) -> None:
    """Writes the files; older ones of the same names are replaced.

    Args:
      network: frozen.
      folder: for the files.
      name: in front of all names of the header.
      calibration: images, for C without floats.

    Raises:
      ValueError: if `name` is no name in C, or the network has something that C has no kernel for.
    """
    _check_name(name)
    files = written(network, name, calibration)
    Path(folder).mkdir(parents=True, exist_ok=True)
    for file, text in files.items():
        (Path(folder) / file).write_text(text, "utf-8")


def written(
    network: FrozenNetwork, name: str, calibration: np.ndarray | None = None
) -> dict[str, str]:
    """The text of each file, by its name."""
    if calibration is None:
        program, output = lowered(network.graph)
    else:
        program, output = lowered_to_integers(network.graph, calibrated(network, calibration))
    numbers = _integers(program, output) if isinstance(program, IntegerProgram) else _FLOATS
    plan = planned(program, output)
    about = f"{network.source.get('network', 'A network')}, with one bit per binary weight. " + (
        f"Written by ovsw_jax {network.source['ovsw_jax']}." if "ovsw_jax" in network.source else ""
    )
    about = comment(about).strip()
    header = source("header.h").replace("@more@", _declarations(network))
    fills = {
        "about": about,
        "INPUT": " x ".join(map(str, network.input_shape)) or "1",
        "OUTPUT": " x ".join(map(str, network.output_shape)) or "1",
        "INPUT_SIZE": str(math.prod(network.input_shape)),
        "OUTPUT_SIZE": str(math.prod(network.output_shape)),
        # C has no array without elements.
        "ARENA": str(plan.size or 16),
        "SCRATCH": str(plan.scratch),
    }
    text = Source(program, output, plan, name).text(about, _definitions(network, program))
    files = {
        f"{name}.c": text,
        f"{name}.h": filled(header, fills),
        "main.c": _main(network, isinstance(program, IntegerProgram)),
        "memory.md": memory_table(program, plan, name),
        "Makefile": source("Makefile"),
        "CMakeLists.txt": source("CMakeLists.txt"),
    }
    names = {**numbers, "name": name, "NAME": name.upper()}
    texts = {file: filled(text, names) for file, text in files.items()}
    return {file: re.sub(r"\n{3,}", "\n\n", text) for file, text in texts.items()}


_FLOATS = {"number": "float", "bits": "", "format": "%.6g", "shown": "double"}


def _integers(program: IntegerProgram, output: int) -> dict[str, str]:
    bits = (
        "/* Numbers are integers: x is x * 2^BITS, and no float is computed with. */\n"
        f"#define @NAME@_INPUT_BITS {program.bits[0]}\n"
        f"#define @NAME@_OUTPUT_BITS {program.bits[output]}\n"
    )
    return {"number": "int16_t", "bits": bits, "format": "%d", "shown": "int"}


def _check_name(name: str) -> None:
    if not isinstance(name, str) or not re.fullmatch(r"[a-z][a-z0-9_]*", name, re.ASCII):
        raise ValueError(
            f"name={name!r} names the functions in C: give small letters, digits and underscores, "
            'a letter first, such as name="digits".'
        )
    if name in _TAKEN:
        raise ValueError(f"name={name!r} is taken in C: give another name.")


def _declarations(network: FrozenNetwork) -> str:
    text = ""
    if network.preprocessing is not None:
        text += (
            "\n/* Pixels from 0 to 255 to what the network takes. */\n"
            "void @name@_preprocess(const uint8_t *pixels, @number@ *input);\n"
        )
    if network.classes is not None:
        text += (
            "\n/* Names of the outputs. */\n"
            f"#define @NAME@_CLASSES {len(network.classes)}\n"
            "extern const char *const @name@_classes[@NAME@_CLASSES];\n"
        )
    return text


def _definitions(network: FrozenNetwork, program: Program) -> str:
    parts = ["/* --- about the network */"]
    if network.classes is not None:
        strings = "\n".join(f"    {_c_string(text)}," for text in network.classes)
        parts.append(f"const char *const @name@_classes[@NAME@_CLASSES] = {{\n{strings}\n}};")
    if (given := network.preprocessing) is not None:
        if isinstance(program, IntegerProgram):
            parts.append(_preprocessing_of_integers(given, program.bits[0]))
        else:
            mean, std = (", ".join(map(float_literal, v)) for v in (given.mean, given.std))
            fills = {"count": str(len(given.mean)), "mean": mean, "std": std}
            parts.append(filled(source("preprocess.c"), fills))
    return "\n\n".join(parts) if len(parts) > 1 else ""


def _preprocessing_of_integers(given: Preprocessing, bits: int) -> str:
    mean, std = np.asarray(given.mean), np.asarray(given.std)
    integers, shift = scaled(2.0**bits / (255 * std))
    offsets = np.rint(-mean / std * 2.0 ** (bits + shift)).astype(np.int64) + (1 << (shift - 1))
    fills = {
        "count": str(len(mean)),
        "scale": ", ".join(map(str, integers)),
        "offset": ", ".join(f"INT64_C({n})" for n in offsets),
        "shift": str(shift),
    }
    return filled(source("preprocess_fixed.c"), fills)


def _c_string(text: str) -> str:
    """A string of C: what is not ASCII as the bytes of UTF-8, in octal digits."""
    plain = {ord('"'): '\\"', ord("\\"): "\\\\", ord("?"): "\\?", ord("@"): "\\100"}
    characters = (
        plain.get(byte) or (chr(byte) if 32 <= byte < 127 else f"\\{byte:03o}")
        for byte in text.encode("utf-8", "surrogateescape")
    )
    return '"' + "".join(characters) + '"'


def _main(network: FrozenNetwork, integers: bool) -> str:
    shape = " x ".join(map(str, network.input_shape)) or "1"
    if network.preprocessing is None:
        reading, unit = "reads_numbers.c", "numbers"
        kind = "int16" if integers else "float32"
        what = f"a file of {shape} {kind} numbers, as the network takes them"
    else:
        reading, unit = "reads_pixels.c", "bytes"
        what = f"a file of {shape} bytes, pixels from 0 to 255"
    show = 'printf("%d\\n", best);'
    if network.classes is not None:
        show = 'printf("%s\\n", @name@_classes[best % @NAME@_CLASSES]);'
    fills = {"what": what, "reading": source(reading), "unit": unit, "print": show}
    return filled(source("main.c"), fills)
