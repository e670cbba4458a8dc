"""Products as steps, with the affine or the threshold behind them while sums are in registers."""

import math
from typing import Any

import numpy as np

from ovsw_jax.deploy.builder import attributes_of, uses
from ovsw_jax.deploy.c import constants as layout
from ovsw_jax.deploy.c.constants import GREATEST, LANES, WORD
from ovsw_jax.deploy.c.steps import Program
from ovsw_jax.deploy.graph import Graph, Node, Signs, Type

PRODUCTS = ("conv", "dense")


def find_ends(graph: Graph, *ops: str) -> dict[int, int]:
    """For each product, the result of the operation, one of `ops`, that alone takes its sums.

    A pool may be in between if a threshold is behind it: the greatest sum is above a limit where
    one of them is.
    """
    counts = uses(graph.nodes, graph.output)
    ends = {}
    for number, node in enumerate(graph.nodes, start=1):
        if node.op not in ops:
            continue
        source = int(node.inputs[0])
        before = graph.nodes[source - 1] if source else None
        if node.op == "threshold" and before and before.op == "max_pool" and counts[source] == 1:
            source = int(before.inputs[0])
            before = graph.nodes[source - 1] if source else None
        if before is None or before.op not in PRODUCTS or counts[source] > 1:
            continue
        if attributes_of(before).get("groups", 1) == 1:
            ends[source] = number
    return ends


def emit_product(program: Program, node: Node, end: Node | None = None) -> int:
    """The step of a product, and of the affine or threshold that is its end."""
    a, graph = attributes_of(node), program.graph
    weights: Any = graph.tensors[str(node.inputs[1])]
    x = program.of_result[int(node.inputs[0])]
    packed_x = isinstance(weights, Signs) and program.values[x].kind == "signs"
    if not packed_x:
        x = program.as_kind(x, "float32")
    groups = a.get("groups", 1)
    if node.op == "dense":
        x = _as_pixels(program, x)
        weights = _with_taps(weights)
        a = {}
    size = weights.shape[1:-1]
    shape = node.type.shape if node.op == "conv" else _pixels(node.type.shape)
    window = program.window(x, size, ((1,) * 2 + shape)[-2:], a, groups)
    if groups > 1:
        return _grouped(program, x, weights, window, groups, shape)
    steps = weights.shape[0], -1
    scratch, kind = 0, "float"
    if not isinstance(weights, Signs):
        table = program.constants.array(layout.in_blocks(weights.reshape(steps)))
    elif not packed_x:
        kind = "sign_weights"
        table = program.constants.array(layout.bits_of_filters(weights))
    elif weights.shape[-1] <= WORD // 2 and math.prod(size) > 1:
        kind, made = "packed", layout.words_of_taps(weights)
        table = program.constants.array(layout.in_blocks(made))
        scratch = 2 * made.shape[1] * shape[-2] * 4
    else:
        kind = "binary"
        table = program.constants.array(layout.in_blocks(layout.words_of_channels(weights)))
    mode, result, out = _end(program, end, "int32" if packed_x else "float32", shape)
    own = ", (u32 *)$scratch" if scratch else ""
    code = f"{kind}_as_{mode}(&{window}, $0, {table}, $line{own}, (Out){{$y, {out}}});"
    y = program.emit(f"{kind}_as_{mode}", code, result, whole=(x,), scratch=scratch)
    return y if node.op == "conv" else program.renamed(y, node.type.shape)


def _end(
    program: Program, end: Node | None, kind: Any, shape: tuple[int, ...]
) -> tuple[str, Type, str]:
    """How sums are stored, as what, and the constants of it."""
    filters, add = shape[-1], program.constants.array
    if end is None:
        return "sums", Type(kind, shape), "NULL, NULL, NULL, NULL"
    if end.op == "affine":
        scale, offset = (
            add(layout.of_filters(_array(program, ref), filters, 0)) for ref in end.inputs[1:]
        )
        return "affine", Type("float32", shape), f"{scale}, {offset}, NULL, NULL"
    limits = program.graph.tensors[str(end.inputs[1])]
    assert isinstance(limits, np.ndarray)
    table = add(layout.of_filters(limits, filters, GREATEST))
    flips = flips_of(program, end)
    return "signs", Type("signs", shape), f"NULL, NULL, {table}, {flips}"


def flips_of(program: Program, threshold: Node) -> str:
    """The name of the words that say which signs of a threshold are the other way, or NULL."""
    if len(threshold.inputs) == 2:
        return "NULL"
    directions = program.graph.tensors[str(threshold.inputs[2])]
    assert isinstance(directions, Signs)
    return program.constants.array(layout.words(~directions.positive()))


def _array(program: Program, ref: Any) -> np.ndarray:
    array: Any = ref if isinstance(ref, float) else program.graph.tensors[ref]
    return np.asarray(array, np.float32)


def _grouped(
    program: Program, x: int, weights: Any, window: str, groups: int, shape: tuple[int, ...]
) -> int:
    if isinstance(weights, Signs) and program.values[x].kind == "signs":
        table = program.constants.array(layout.words_of_channels(weights))
        kernel, result = "grouped_binary", Type("int32", shape)
    else:
        values = weights.values() if isinstance(weights, Signs) else weights
        table = program.constants.array(np.ascontiguousarray(np.moveaxis(values, 0, -1)))
        kernel, result = "grouped_float", Type("float32", shape)
    code = f"{kernel}(&{window}, {groups}, $0, {table}, $line, $y);"
    return program.emit(kernel, code, result, whole=(x,))


def _pixels(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of what a dense layer sees or gives: all rows are pixels of one line."""
    return (math.prod(shape[:-1]), shape[-1])


def _as_pixels(program: Program, x: int) -> int:
    return program.renamed(x, _pixels(program.values[x].shape))


def _with_taps(weights: Any) -> Any:
    shape = (weights.shape[0], 1, weights.shape[1])
    if isinstance(weights, Signs):
        return Signs(shape, weights.bits)
    return weights.reshape(shape)


assert WORD == 2 * LANES  # two blocks of filters fill a word of signs
