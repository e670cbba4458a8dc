"""What an instruction is for, by the operation and the function of the source it comes from."""

import re

from experiments.accelerators.program_text import Instruction, ProgramText

PRODUCTS = ("forward products", "input gradients", "kernel gradients")

# The first that fits, from the innermost frame of the stack outwards. Files as "folder/file.py",
# the library's beside those of plain JAX (Flax's batch norm and benchmarks/plain_jax.py).
_PLACES = {
    "batch norm": r"batch_norm\.py|flax/.*normalization\.py|nnx/nn/normalization\.py",
    "sample statistics": r":(normalize_sample|_BinaryConv\.__call__)|sample_\w*\.py|finite\.py",
    "factors": r"scale\.py|:_factor",
    "rules": r"ovsw_jax/(?!nn|models|linen|graph)\w+\.py|ovsw_jax/flip_state/",
    "optimizer": r"optax/(transforms|_src|contrib)/",
    "signs": r"sign|words\.py|taps\.py|plain_jax\.py:_$|threshold\.py",
}
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
    for frame in program.frames(part):
        for kind, pattern in _PLACES.items():
            if re.search(pattern, frame):
                return kind
    return None
