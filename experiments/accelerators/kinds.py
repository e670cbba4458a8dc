"""What an instruction is for, by the operation and the function of the source it comes from."""

import re

from experiments.accelerators.program_text import Instruction, ProgramText

PRODUCTS = ("forward products", "input gradients", "kernel gradients")

# The first that fits, from the innermost frame of the stack outwards: functions of the library, of
# what plain JAX is made of, and of Optax. Paths begin with the package.
_PLACES = {
    "batch norm": ("^ovsw_jax/nn/batch_norm.py", "^flax/nnx/nn/normalization.py"),
    "sample statistics": (
        ":sample_deviation$",
        "^ovsw_jax/nn/_kernels/finite.py",
        "plain_jax.py:_BinaryConv.__call__$",
    ),
    "factors": ("^ovsw_jax/nn/scale.py", "plain_jax.py:_factor$"),
    "rules": (r"^ovsw_jax/\w+\.py", "^ovsw_jax/flip_state/"),
    "optimizer": ("^optax/transforms/", "^optax/_src/"),
    "signs": (
        "^ovsw_jax/nn/.*(sign|threshold|words|taps)",
        "plain_jax.py:(_input_sign|_kernel_sign|_)$",
    ),
}
_PACKAGE = re.compile(r".*/(?=(?:ovsw_jax|benchmarks|flax|optax)/)")
KINDS = (*PRODUCTS, *_PLACES, "collectives", "else")

_REDUCTIONS = ("reduce", "reduce-window", "all-reduce")
_CONVOLUTIONS = {  # cuDNN's, by the target of the call
    "Forward": "forward products",
    "BackwardInput": "input gradients",
    "BackwardFilter": "kernel gradients",
}


def kind_of(program: ProgramText, instruction: Instruction) -> str:
    """One of `KINDS`.

    A fusion is for the product within it, else for the first reduction within it whose source is
    known, else for its result, else for the first of its parts that has a place here.
    """
    parts = [instruction, *program.parts(instruction)]
    for part in parts:
        if product := _product(part):
            return product
    if re.match("all-|reduce-scatter|collective-", instruction.opcode):
        return "collectives"
    for part in parts:
        if part.opcode in _REDUCTIONS and program.frames(part):
            return _place(program, part) or "else"
    for part in parts:
        if place := _place(program, part):
            return place
    return "else"


def _product(part: Instruction) -> str | None:
    """Which product it is, if it is one."""
    target = part.attribute(r'custom_call_target="([^"]*)"')
    if known := re.search(r"conv(Forward|BackwardInput|BackwardFilter)", target):
        kind = _CONVOLUTIONS[known[1]]
        # A forward convolution may also compute a gradient.
        return kind if known[1] != "Forward" else _product_by_labels(part)
    if part.opcode in ("convolution", "dot") or "cublas" in target or "gemm" in target:
        return _product_by_labels(part)
    return None


def _product_by_labels(part: Instruction) -> str:
    """Gradients have a transpose in their names; those to kernels sum over the batch."""
    if "transpose(" not in part.op_name:
        return "forward products"
    over_batch = r"dim_labels=f|lhs_contracting_dims=\{0\}|lhs_contracting_dimensions\":\[\"0\"\]"
    return "kernel gradients" if re.search(over_batch, part.rest) else "input gradients"


def _place(program: ProgramText, part: Instruction) -> str | None:
    places = (place_of(frame) for frame in program.frames(part))
    return next((place for place in places if place), None)


def place_of(frame: str) -> str | None:
    """The kind of what a function does by itself, as "path/file.py:function"; None if unknown."""
    frame = _PACKAGE.sub("", frame)
    for kind, patterns in _PLACES.items():
        if any(re.search(pattern, frame) for pattern in patterns):
            return kind
    return None
