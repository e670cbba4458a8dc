"""A graph as steps on integers alone: real numbers count powers of two."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ovsw_jax.deploy.builder import attributes_of
from ovsw_jax.deploy.c import places
from ovsw_jax.deploy.c.integer_program import IntegerProgram, bits_for, scaled
from ovsw_jax.deploy.c.lower import (
    emit_end,
    emit_max_pool,
    emit_threshold,
    is_pool_of_an_end,
)
from ovsw_jax.deploy.c.products import emit_product, find_ends
from ovsw_jax.deploy.c.steps import FIXED, lines_of
from ovsw_jax.deploy.graph import Graph, Node, Signs, Type


def lowered_to_integers(graph: Graph, greatest: np.ndarray) -> tuple[IntegerProgram, int]:
    """The steps of a graph, and the value that is its output, which is fixed.

    Args:
      graph: the network.
      greatest: magnitude of each result over images that are like those to come.

    Raises:
      ValueError: if an operation has no form in integers; it names the layer and the operation.
    """
    p, ends = IntegerProgram(graph, greatest), find_ends(graph, "threshold")
    sources = {end: source for source, end in ends.items()}
    for number, node in enumerate(graph.nodes, start=1):
        p.node, p.number = node, number
        if number in ends or is_pool_of_an_end(graph, node, ends):
            continue  # at its end
        if number in sources:
            y = emit_end(p, sources[number], node)
        elif node.op in _OPERATIONS:
            y = _OPERATIONS[node.op](p, node)
        else:
            raise p.refusal(
                f"the operation {node.op} with integers alone",
                "Leave out integer=True, or use another activation.",
            )
        p.of_result[number] = y
    p.number = graph.output
    output = p.as_kind(p.of_result[graph.output], "float32")
    if p.root(output) == 0:
        size = math.prod(graph.input.shape)
        code = f"memcpy($y, $0, {size} * sizeof(i16));"
        copy = p.emit((), code, Type(FIXED, (size,)), whole=(output,), at_once=True)
        output = p.alike(copy, output)
    return p, output


def _x(p: IntegerProgram, node: Node, place: int = 0) -> int:
    return p.of_result[int(node.inputs[place])]


def _is_binary(p: IntegerProgram, node: Node) -> bool:
    weights = p.graph.tensors[str(node.inputs[1])]
    return isinstance(weights, Signs) and p.values[_x(p, node)].kind == "signs"


def _product(p: IntegerProgram, node: Node) -> int:
    if _is_binary(p, node):
        y = emit_product(p, node)
        p.scales[y] = np.ones(())
        return y
    x = _x(p, node)
    x = x if p.values[x].kind == "signs" else _fixed_input(p, node)
    tensor: Any = p.graph.tensors[str(node.inputs[1])]
    weights = tensor.values() if isinstance(tensor, Signs) else tensor
    a, shape = attributes_of(node), node.type.shape
    if node.op == "dense":
        rows = math.prod(shape[:-1])
        x, shape = p.renamed(x, (rows, weights.shape[1])), (rows, shape[-1])
        weights, a = weights[:, None], {}
    x, most = p.factor(x, math.prod(weights.shape[1:]))
    filters = np.abs(weights.reshape(len(weights), -1).astype(np.float64)).max(1)
    # Powers of two, so that weights which are multiples of one stay what they are.
    steps = 2.0 ** np.ceil(np.log2(np.maximum(filters, 1e-30) / most))
    integers = np.rint(weights / steps.reshape(-1, *[1] * (weights.ndim - 1))).astype(np.int16)
    groups = a.get("groups", 1)
    window = p.window(x, weights.shape[1:-1], (1, 1, *shape)[-2:], a, groups)
    table = p.constants.array(integers)
    code = f"fixed_product(&{window}, {groups}, $0, {table}, $line, $y);"
    y = p.emit("fixed_product", code, Type("int32", shape), whole=(x,))
    p.scales[y] = steps * 2.0 ** -p.bits[x]
    return y if node.op == "conv" else p.renamed(y, node.type.shape)


def _affine(p: IntegerProgram, node: Node) -> int:
    x = _x(p, node)
    x = x if p.values[x].kind == "int32" else p.as_kind(x, "float32")
    scale, offset = (_constant(p, ref) for ref in node.inputs[1:])
    return p.affine(x, scale, offset)


def _constant(p: IntegerProgram, ref: Any) -> np.ndarray:
    array: Any = ref if isinstance(ref, float) else p.graph.tensors[ref]
    return np.asarray(array, np.float64)


def _sum(sign: int) -> Callable[[IntegerProgram, Node], int]:
    def emit(p: IntegerProgram, node: Node) -> int:
        if not all(isinstance(ref, int) for ref in node.inputs):
            raise p.refusal(
                f"the operation {node.op} with a constant of several axes, with integers alone",
                "Leave out integer=True.",
            )
        shape = node.type.shape
        a, b = (_repeated(p, _fixed_input(p, node, place), shape) for place in (0, 1))
        bits = _bits(p)
        factors = [2.0 ** (bits - p.bits[a]), sign * 2.0 ** (bits - p.bits[b])]
        (left, right), shift = scaled(np.asarray(factors))
        sizes = math.prod(shape) // lines_of(shape)
        code = f"fixed_add($0, {left}, $1, {right}, {shift}, $y, {sizes});"
        y = p.emit("fixed_add", code, Type(FIXED, shape), lines=(a, b))
        p.bits[y] = bits
        return y

    return emit


def _fixed_input(p: IntegerProgram, node: Node, place: int = 0) -> int:
    """An input as fixed numbers, which its own magnitude scales."""
    number, p.number = p.number, int(node.inputs[place])
    x = p.as_kind(_x(p, node, place), "float32")
    p.number = number
    return x


def _repeated(p: IntegerProgram, x: int, shape: tuple[int, ...]) -> int:
    return p.alike(places.repeated(p, x, shape), x)


def _bits(p: IntegerProgram) -> int:
    return bits_for(float(p.greatest[p.number]))


def _clip(p: IntegerProgram, node: Node) -> int:
    x, a = _fixed_input(p, node), attributes_of(node)
    limit = np.iinfo(np.int16).max
    low, high = (
        default if a[name] is None else round(max(-limit, min(limit, a[name] * 2.0 ** p.bits[x])))
        for name, default in (("low", -limit), ("high", limit))
    )
    shape = node.type.shape
    code = f"fixed_clip($0, {low}, {high}, $y, {math.prod(shape) // lines_of(shape)});"
    return p.alike(p.emit("fixed_clip", code, Type(FIXED, shape), lines=(x,)), x)


def _prelu(p: IntegerProgram, node: Node) -> int:
    x, shape = _fixed_input(p, node), node.type.shape
    channels = shape[-1] if shape else 1
    slopes, shift = scaled(np.broadcast_to(_constant(p, node.inputs[1]), channels))
    sizes = f"{math.prod(shape[:-1]) // lines_of(shape)}, {channels}"
    code = f"fixed_prelu($0, {p.constants.array(slopes)}, {shift}, $y, {sizes});"
    return p.alike(p.emit("fixed_prelu", code, Type(FIXED, shape), lines=(x,)), x)


def _sign(p: IntegerProgram, node: Node) -> int:
    return p.as_kind(_x(p, node), "signs")


def _threshold(p: IntegerProgram, node: Node) -> int:
    return emit_threshold(p, node)


def _max_pool(p: IntegerProgram, node: Node) -> int:
    x = _x(p, node)
    if p.values[x].kind != FIXED:
        return p.alike(emit_max_pool(p, x, node), x)
    return p.alike(_pool(p, node, x, "fixed_max_pool", ""), x)


def _avg_pool(p: IntegerProgram, node: Node) -> int:
    x = _fixed_input(p, node)
    (integer,), shift = scaled(np.asarray([1 / math.prod(node.attributes["window"])]))
    return p.alike(_pool(p, node, x, "fixed_avg_pool", f" {integer}, {shift},"), x)


def _pool(p: IntegerProgram, node: Node, x: int, kernel: str, more: str) -> int:
    a, shape = attributes_of(node), node.type.shape
    window = p.window(x, a["window"], ((1, *shape) if len(shape) == 2 else shape), a, 1)
    code = f"{kernel}(&{window}, $0,{more} $line, $y);"
    return p.emit(kernel, code, Type(FIXED, shape), whole=(x,))


def _mean(p: IntegerProgram, node: Node) -> int:
    x = _fixed_input(p, node)
    shape, axes = p.values[x].shape, sorted(node.attributes["axes"])
    kept = [a for a in range(len(shape)) if a not in axes]
    if axes != list(range(len(axes))):
        x = p.alike(places.transposed(p, x, [*axes, *kept]), x)
    count, size = (math.prod(shape[a] for a in part) for part in (axes, kept))
    bits = _bits(p)
    (integer,), shift = scaled(np.asarray([2.0 ** (bits - p.bits[x]) / count]))
    code = f"fixed_mean($0, {integer}, {shift}, $y, {count}, {size});"
    y = p.emit("fixed_mean", code, Type(FIXED, node.type.shape), whole=(x,), at_once=True)
    p.bits[y] = bits
    return y


def _moved(emit: Callable[[Any, Node], int]) -> Callable[[IntegerProgram, Node], int]:
    def moved(p: IntegerProgram, node: Node) -> int:
        x = _x(p, node)
        if p.values[x].kind == "int32" and p.scales[x].ndim:
            x = p.of_result[int(node.inputs[0])] = _fixed_input(p, node)
        return p.alike(emit(p, node), x)

    return moved


def _pad(p: IntegerProgram, node: Node) -> int:
    x, a = _x(p, node), attributes_of(node)
    if node.type.kind == "signs":
        return places.emit_pad(p, node)
    x = _fixed_input(p, node)
    value = round(a["value"] * 2.0 ** p.bits[x])
    if abs(value) > np.iinfo(np.int16).max:
        raise p.refusal(
            f"a border of {a['value']:g} around numbers up to {p.greatest[p.number]:g}",
            "Leave out integer=True.",
        )
    fill = f"fill_halves($y, {value}, {math.prod(node.type.shape)});"
    return p.alike(places.padded(p, x, a["padding"], fill), x)


_OPERATIONS: dict[str, Callable[[IntegerProgram, Node], int]] = {
    "conv": _product,
    "dense": _product,
    "sign": _sign,
    "threshold": _threshold,
    "affine": _affine,
    "prelu": _prelu,
    "clip": _clip,
    "add": _sum(1),
    "sub": _sum(-1),
    "max_pool": _max_pool,
    "avg_pool": _avg_pool,
    "mean": _mean,
    "pad": _pad,
    "reshape": _moved(places.emit_reshape),
    "broadcast": _moved(places.emit_broadcast),
    "transpose": _moved(places.emit_transpose),
    "slice": _moved(places.emit_slice),
    "reverse": _moved(places.emit_reverse),
}
