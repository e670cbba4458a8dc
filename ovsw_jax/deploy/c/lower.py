"""A graph as steps: which kernel each operation is."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ovsw_jax.deploy.builder import attributes_of
from ovsw_jax.deploy.c import places
from ovsw_jax.deploy.c.constants import WORD, float_literal, shared_length
from ovsw_jax.deploy.c.products import PRODUCTS, emit_product, find_ends, flips_of
from ovsw_jax.deploy.c.steps import Program, lines_of
from ovsw_jax.deploy.graph import Graph, Node, Type


def lowered(graph: Graph) -> tuple[Program, int]:
    """The steps of a graph, and the value that is its output, float32.

    Raises:
      ValueError: if C has no kernel for something; it names the layer and the operation.
    """
    program, ends = Program(graph), find_ends(graph, "affine", "threshold")
    sources = {end: source for source, end in ends.items()}
    for number, node in enumerate(graph.nodes, start=1):
        program.node = node
        if number in ends or is_pool_of_an_end(graph, node, ends):
            continue  # at its end
        if number in sources:
            y = emit_end(program, sources[number], node)
        else:
            y = _OPERATIONS[node.op](program, node)
        program.of_result[number] = y
    output = program.as_kind(program.of_result[graph.output], "float32")
    if program.root(output) == 0:
        size = math.prod(graph.input.shape)
        code = f"memcpy($y, $0, {size} * sizeof(f32));"
        shape = Type("float32", (size,))
        output = program.emit((), code, shape, whole=(output,), at_once=True)
    return program, output


def is_pool_of_an_end(graph: Graph, node: Node, ends: dict[int, int]) -> bool:
    """Whether a node is the pool between a product and its threshold."""
    if node.op != "max_pool" or node.inputs[0] not in ends:
        return False
    end = graph.nodes[ends[int(node.inputs[0])] - 1]
    return graph.nodes[int(end.inputs[0]) - 1] is node


def emit_end(program: Program, source: int, end: Node) -> int:
    """The steps of a product, the result `source`, and of what is behind it up to its end."""
    product = program.graph.nodes[source - 1]
    program.node = product
    if int(end.inputs[0]) == source:
        return emit_product(program, product, end)
    # The greatest of sums is above a limit where one of them is: pool signs, and flip them then.
    pool = program.graph.nodes[int(end.inputs[0]) - 1]
    plain = Node(end.op, end.inputs[:2], end.attributes, end.type, end.layer)
    x = emit_product(program, product, plain)
    y = emit_max_pool(program, x, pool)
    flips = flips_of(program, end)
    if flips == "NULL":
        return y
    words = -(-pool.type.shape[-1] // WORD)
    code = f"flip_signs($0, {flips}, $y, {_pixels(pool.type.shape)}, {words});"
    return program.emit("flip_signs", code, program.values[y], lines=(y,))


def _pixels(shape: tuple[int, ...]) -> int:
    """Of one line."""
    return math.prod(shape[:-1]) // lines_of(shape)


def _channels(shape: tuple[int, ...]) -> int:
    return shape[-1] if shape else 1


def _line(shape: tuple[int, ...]) -> int:
    """Elements of one line."""
    return _pixels(shape) * _channels(shape)


# --- one number at a time


def _of_one(kernel: str) -> Callable[[Program, Node], int]:
    def emit(p: Program, node: Node) -> int:
        x = p.as_kind(p.of_result[int(node.inputs[0])], "float32")
        shape = p.values[x].shape
        code = f"{kernel}($0, $y, {_line(shape)});"
        return p.emit(kernel, code, Type("float32", shape), lines=(x,))

    return emit


def _clip(p: Program, node: Node) -> int:
    x, a = p.as_kind(p.of_result[int(node.inputs[0])], "float32"), attributes_of(node)
    low = float_literal(-math.inf if a["low"] is None else a["low"])
    high = float_literal(math.inf if a["high"] is None else a["high"])
    code = f"clip($0, {low}, {high}, $y, {_line(node.type.shape)});"
    return p.emit("clip", code, node.type, lines=(x,))


def _of_two(kernel: str, kind: str = "float32") -> Callable[[Program, Node], int]:
    def emit(p: Program, node: Node) -> int:
        arguments, sizes, lines = _operands(p, node, list(node.inputs))
        code = f"{kernel}({', '.join(arguments)}, $y, {sizes});"
        return p.emit(kernel, code, Type(kind, node.type.shape), lines=lines)  # type: ignore[arg-type]

    return emit


def _operands(
    p: Program, node: Node, refs: list[Any], first: int = 0
) -> tuple[list[str], str, tuple[int, ...]]:
    """Pointer and step of each operand, pixels and channels, and the values among them."""
    shape = node.type.shape
    line, values = _line(shape), []
    sources: list[np.ndarray | None] = []
    for ref in refs:
        if isinstance(ref, int):
            x = p.as_kind(p.of_result[ref], "float32")
            values.append(places.repeated(p, x, shape))
            sources.append(None)
        else:
            array: Any = ref if isinstance(ref, float) else p.graph.tensors[ref]
            sources.append(_least(np.asarray(array, np.float32)))
    # How much of a line the constants say: one number, one of each channel, or all of it.
    ranks = [a.ndim for a in sources if a is not None]
    length = line
    if ranks and max(ranks) == 0:
        length = shared_length({"line": line})
    elif ranks and max(ranks) == 1:
        length = _channels(shape)
    arguments, place = [], first
    for source in sources:
        if source is None:
            arguments += [f"${place}", str(length)]
            place += 1
        elif source.ndim <= 1:
            name = p.constants.array(np.broadcast_to(source, length))
            arguments += [name, "0"]
        else:
            name = p.constants.array(np.broadcast_to(source, shape))
            at = f"{name} + $line * {line}" if lines_of(shape) > 1 else name
            arguments += [at, str(length)]
    return arguments, f"{line // length}, {length}", tuple(values)


def _least(array: np.ndarray) -> np.ndarray:
    """A constant without leading axes of size 1."""
    while array.ndim and array.shape[0] == 1:
        array = array[0]
    return array


def _affine(p: Program, node: Node) -> int:
    (x, _, scale, _, offset, _), sizes, lines = _operands(p, node, list(node.inputs))
    return p.emit("affine", f"affine({x}, {scale}, {offset}, $y, {sizes});", node.type, lines=lines)


def _select(p: Program, node: Node) -> int:
    condition = places.repeated(p, p.of_result[int(node.inputs[0])], node.type.shape)
    arguments, sizes, lines = _operands(p, node, list(node.inputs[1:]), first=1)
    code = f"select_floats($0, {', '.join(arguments)}, $y, {sizes});"
    return p.emit("select_floats", code, node.type, lines=(condition, *lines))


def _not(p: Program, node: Node) -> int:
    x = p.of_result[int(node.inputs[0])]
    code = f"opposite($0, $y, {_line(node.type.shape)});"
    return p.emit("opposite", code, node.type, lines=(x,))


# --- signs


def _sign(p: Program, node: Node) -> int:
    return p.as_kind(p.of_result[int(node.inputs[0])], "signs")


def emit_threshold(p: Program, node: Node) -> int:
    """Signs of sums."""
    x = p.as_kind(p.of_result[int(node.inputs[0])], "int32")
    limits: Any = p.graph.tensors[str(node.inputs[1])]
    shape = node.type.shape
    sizes = f"{_pixels(shape)}, {_channels(shape)}"
    code = f"threshold($0, {p.constants.array(limits)}, {flips_of(p, node)}, $y, {sizes});"
    return p.emit("threshold", code, node.type, lines=(x,))


# --- several numbers


def _max_pool(p: Program, node: Node) -> int:
    return emit_max_pool(p, p.of_result[int(node.inputs[0])], node)


def emit_max_pool(p: Program, x: int, node: Node) -> int:
    """The maximum of floats, sums or signs."""
    kind = p.values[x].kind
    kernel = {"float32": "max_pool_floats", "int32": "max_pool_sums", "signs": "max_pool_signs"}
    return _pool(p, x, node, kernel[kind])


def _avg_pool(p: Program, node: Node) -> int:
    return _pool(p, p.as_kind(p.of_result[int(node.inputs[0])], "float32"), node, "avg_pool")


def _pool(p: Program, x: int, node: Node, kernel: str) -> int:
    a, shape = attributes_of(node), node.type.shape
    window = p.window(x, a["window"], ((1, *shape) if len(shape) == 2 else shape), a, 1)
    result = Type(p.values[x].kind, shape)
    return p.emit(kernel, f"{kernel}(&{window}, $0, $line, $y);", result, whole=(x,))


def _reduce(kernel: str) -> Callable[[Program, Node], int]:
    def emit(p: Program, node: Node) -> int:
        x = p.as_kind(p.of_result[int(node.inputs[0])], "float32")
        shape, axes = p.values[x].shape, sorted(node.attributes["axes"])
        kept = [a for a in range(len(shape)) if a not in axes]
        if axes != list(range(len(axes))):
            x = places.transposed(p, x, [*axes, *kept])
        count, size = (math.prod(shape[a] for a in part) for part in (axes, kept))
        result = Type("float32", node.type.shape)
        code = f"{kernel}($0, $y, {count}, {size});"
        return p.as_kind(p.emit(kernel, code, result, whole=(x,), at_once=True), node.type.kind)

    return emit


_OPERATIONS: dict[str, Callable[[Program, Node], int]] = {
    **dict.fromkeys(PRODUCTS, emit_product),
    "sign": _sign,
    "threshold": emit_threshold,
    "affine": _affine,
    "prelu": _of_two("prelu"),
    "clip": _clip,
    "abs": _of_one("absolute"),
    "exp": _of_one("exponential"),
    "log": _of_one("logarithm"),
    "tanh": _of_one("tangent"),
    "sigmoid": _of_one("sigmoid"),
    "erf": _of_one("error_function"),
    "sqrt": _of_one("root"),
    "add": _of_two("add"),
    "sub": _of_two("subtract"),
    "mul": _of_two("multiply"),
    "div": _of_two("divide"),
    "max": _of_two("greatest"),
    "min": _of_two("least"),
    "pow": _of_two("power"),
    "equal": _of_two("equal", "bool"),
    "greater": _of_two("greater", "bool"),
    "greater_equal": _of_two("greater_equal", "bool"),
    "not": _not,
    "select": _select,
    "max_pool": _max_pool,
    "avg_pool": _avg_pool,
    "mean": _reduce("mean"),
    "reduce_max": _reduce("reduce_max"),
    "reduce_min": _reduce("reduce_min"),
    "pad": places.emit_pad,
    "reshape": places.emit_reshape,
    "broadcast": places.emit_broadcast,
    "transpose": places.emit_transpose,
    "slice": places.emit_slice,
    "reverse": places.emit_reverse,
    "concat": places.emit_concat,
}
