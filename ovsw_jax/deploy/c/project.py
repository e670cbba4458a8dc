"""A folder with the C of a network: source, header, an example and how they are built."""

import math
import os
import re
from pathlib import Path

from ovsw_jax.deploy.c.amalgamation import source
from ovsw_jax.deploy.c.constants import float_literal
from ovsw_jax.deploy.c.lower import lowered
from ovsw_jax.deploy.c.memory import planned
from ovsw_jax.deploy.c.source import Source, filled
from ovsw_jax.deploy.network import FrozenNetwork

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


def write_c(network: FrozenNetwork, folder: str | os.PathLike[str], name: str) -> None:
    """Writes the files; older ones of the same names are replaced.

    Raises:
      ValueError: if `name` is no name in C, or the network has something that C has no kernel for.
    """
    _check_name(name)
    files = written(network, name)
    Path(folder).mkdir(parents=True, exist_ok=True)
    for file, text in files.items():
        (Path(folder) / file).write_text(text, "utf-8")


def written(network: FrozenNetwork, name: str) -> dict[str, str]:
    """The text of each file, by its name."""
    program, output = lowered(network.graph)
    plan = planned(program, output)
    about = f"{network.source.get('network', 'A network')}, with one bit per binary weight. " + (
        f"Written by ovsw_jax {network.source['ovsw_jax']}." if "ovsw_jax" in network.source else ""
    )
    about = re.sub(r"[^ -~]|\*/", "?", about).strip()
    header = source("header.h")
    fills = {
        "about": about,
        "INPUT": " x ".join(map(str, network.input_shape)) or "1",
        "OUTPUT": " x ".join(map(str, network.output_shape)) or "1",
        "INPUT_SIZE": str(math.prod(network.input_shape)),
        "OUTPUT_SIZE": str(math.prod(network.output_shape)),
        # C has no array without elements.
        "ARENA": str(plan.size or 16),
        "SCRATCH": str(plan.scratch),
        "more": _declarations(network),
    }
    for key, value in fills.items():
        header = header.replace(f"@{key}@", value)
    return {
        f"{name}.c": Source(program, output, plan, name).text(about, _definitions(network, name)),
        f"{name}.h": filled(header, name),
        "main.c": filled(_main(network), name),
        "Makefile": filled(source("Makefile"), name),
        "CMakeLists.txt": filled(source("CMakeLists.txt"), name),
    }


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
            "void @name@_preprocess(const uint8_t *pixels, float *input);\n"
        )
    if network.classes is not None:
        text += (
            "\n/* Names of the outputs. */\n"
            f"#define @NAME@_CLASSES {len(network.classes)}\n"
            "extern const char *const @name@_classes[@NAME@_CLASSES];\n"
        )
    return text


def _definitions(network: FrozenNetwork, name: str) -> str:
    parts = ["/* --- about the network */"]
    if network.classes is not None:
        strings = "\n".join(f"    {_c_string(text)}," for text in network.classes)
        parts.append(f"const char *const @name@_classes[@NAME@_CLASSES] = {{\n{strings}\n}};")
    if (given := network.preprocessing) is not None:
        mean, std = (", ".join(map(float_literal, v)) for v in (given.mean, given.std))
        text = source("preprocess.c").replace("@mean@", mean).replace("@std@", std)
        parts.append(text.replace("@count@", str(len(given.mean))))
    return filled("\n\n".join(parts), name) if len(parts) > 1 else ""


def _c_string(text: str) -> str:
    """A string of C: what is not ASCII as the bytes of UTF-8, in octal digits."""
    plain = {ord('"'): '\\"', ord("\\"): "\\\\", ord("?"): "\\?"}
    characters = (
        plain.get(byte) or (chr(byte) if 32 <= byte < 127 else f"\\{byte:03o}")
        for byte in text.encode("utf-8", "surrogateescape")
    )
    return '"' + "".join(characters) + '"'


def _main(network: FrozenNetwork) -> str:
    shape = " x ".join(map(str, network.input_shape)) or "1"
    if network.preprocessing is None:
        reading, unit = "reads_floats.c", "numbers"
        what = f"a file of {shape} float32 numbers, as the network takes them"
    else:
        reading, unit = "reads_pixels.c", "bytes"
        what = f"a file of {shape} bytes, pixels from 0 to 255"
    show = 'printf("%d\\n", best);'
    if network.classes is not None:
        show = 'printf("%s\\n", @name@_classes[best % @NAME@_CLASSES]);'
    text = source("main.c")
    fills = {"what": what, "reading": source(reading), "unit": unit, "print": show}
    for key, value in fills.items():
        text = text.replace(f"@{key}@", value)
    return text
