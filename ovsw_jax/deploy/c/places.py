"""Moves of elements as steps: transposes, slices, borders and the like."""

import math
from collections.abc import Sequence

from ovsw_jax.deploy.builder import attributes_of
from ovsw_jax.deploy.c.constants import WORD, float_literal
from ovsw_jax.deploy.c.steps import FIXED, Program
from ovsw_jax.deploy.graph import Node, Type

_MOST_AXES = 6  # AXES in place.h
_Steps = list[int]


def row_major(shape: Sequence[int]) -> _Steps:
    """How far apart the elements of each axis are."""
    return [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]


def emit_reshape(program: Program, node: Node) -> int:
    """The same memory, unless signs of other channels share words then."""
    x = program.of_result[int(node.inputs[0])]
    old, new = program.values[x].shape, node.type.shape
    aligned = old[-1:] == new[-1:] or all(s and s[-1] % WORD == 0 for s in (old, new))
    if program.values[x].kind != "signs" or aligned:
        return program.renamed(x, new)
    size = math.prod(new)
    return _moved(program, x, new, [size], 0, [1], [1])


def emit_transpose(program: Program, node: Node) -> int:
    """Axes in another order."""
    x = program.of_result[int(node.inputs[0])]
    axes = node.attributes["axes"]
    return transposed(program, x, axes)


def transposed(program: Program, x: int, axes: Sequence[int]) -> int:
    """A value with its axes in another order."""
    steps = row_major(program.values[x].shape)
    shape = tuple(program.values[x].shape[a] for a in axes)
    return _placed(program, x, shape, 0, [steps[a] for a in axes])


def emit_slice(program: Program, node: Node) -> int:
    """Every so many elements of a part."""
    x = program.of_result[int(node.inputs[0])]
    a, steps = attributes_of(node), row_major(program.values[x].shape)
    each = a["step"] or (1,) * len(steps)
    start = sum(n * s for n, s in zip(a["start"], steps, strict=True))
    taken = [n * s for n, s in zip(each, steps, strict=True)]
    return _placed(program, x, node.type.shape, start, taken)


def emit_reverse(program: Program, node: Node) -> int:
    """Axes backwards."""
    x = program.of_result[int(node.inputs[0])]
    shape, axes = program.values[x].shape, node.attributes["axes"]
    steps = row_major(shape)
    start = sum((shape[a] - 1) * steps[a] for a in axes)
    return _placed(program, x, shape, start, [-s if a in axes else s for a, s in enumerate(steps)])


def emit_broadcast(program: Program, node: Node) -> int:
    """Axes of size 1 repeated."""
    return repeated(program, program.of_result[int(node.inputs[0])], node.type.shape)


def repeated(program: Program, x: int, shape: tuple[int, ...]) -> int:
    """A value with its axes of size 1 repeated to a shape."""
    old = program.values[x].shape
    if old == shape:
        return x
    steps = zip(old, row_major(old), strict=True)
    return _placed(program, x, shape, 0, [s if n > 1 else 0 for n, s in steps])


def _placed(program: Program, x: int, shape: tuple[int, ...], start: int, steps: _Steps) -> int:
    return _moved(program, x, shape, list(shape), start, steps, row_major(shape))


def _moved(
    program: Program,
    x: int,
    shape: tuple[int, ...],
    sizes: list[int],
    start: int,
    x_steps: _Steps,
    y_steps: _Steps,
) -> int:
    kind = program.values[x].kind
    move = _move(program, sizes, start, x_steps, 0, y_steps)
    result = Type(kind, shape)
    if kind != "signs":
        kernel = _kernel(kind)
        return program.emit(kernel, f"{kernel}(&{move}, $0, $y);", result, whole=(x,), at_once=True)
    from_channels = program.values[x].shape[-1]
    channels = shape[-1] if shape else 1
    code = f"{_clear(shape)} move_signs(&{move}, $0, {from_channels}, $y, {channels});"
    return program.emit(("fill_signs", "move_signs"), code, result, whole=(x,), at_once=True)


def _clear(shape: tuple[int, ...]) -> str:
    channels = shape[-1] if shape else 1
    return f"fill_signs($y, 0, {math.prod(shape[:-1])}, {channels});"


def _move(
    program: Program, sizes: _Steps, x_start: int, x_steps: _Steps, y_start: int, y_steps: _Steps
) -> str:
    if len(sizes) > _MOST_AXES:
        raise program.refusal(
            f"the operation {program.node.op} of {len(sizes)} axes",
            f"C has a kernel for at most {_MOST_AXES}: reshape first, or use frozen.to_onnx.",
        )
    missing = _MOST_AXES - len(sizes)
    front = [0] * missing
    return program.constants.struct(
        "Move",
        [[1] * missing + sizes, x_start, front + x_steps, y_start, front + y_steps],
    )


def emit_concat(program: Program, node: Node) -> int:
    """Inputs one behind the other."""
    kind, shape, axis = node.type.kind, node.type.shape, node.attributes["axis"]
    inputs = tuple(program.as_kind(program.of_result[int(ref)], kind) for ref in node.inputs)
    steps, at, calls = row_major(shape), 0, []
    for place, x in enumerate(inputs):
        sizes = list(program.values[x].shape)
        move = _move(program, sizes, 0, row_major(sizes), at * steps[axis], steps)
        at += sizes[axis]
        if kind == "signs":
            calls.append(f"move_signs(&{move}, ${place}, {sizes[-1]}, $y, {shape[-1]});")
        else:
            calls.append(f"{_kernel(kind)}(&{move}, ${place}, $y);")
    kernels: tuple[str, ...] = (_kernel(kind),)
    if kind == "signs":
        calls.insert(0, _clear(shape))
        kernels = ("move_signs", "fill_signs")
    return program.emit(kernels, " ".join(calls), Type(kind, shape), whole=inputs, at_once=True)


def _kernel(kind: str) -> str:
    return {"bool": "move_bytes", FIXED: "move_halves"}.get(kind, "move_words")


def emit_pad(program: Program, node: Node) -> int:
    """A border."""
    x, a = program.of_result[int(node.inputs[0])], attributes_of(node)
    shape = node.type.shape
    if node.type.kind != "signs" or tuple(a["padding"][-1]) != (0, 0):
        x = program.as_kind(x, "float32")
        fill = f"fill_floats($y, {float_literal(a['value'])}, {math.prod(shape)});"
        return program.as_kind(padded(program, x, a["padding"], fill), node.type.kind)
    x, channels = program.as_kind(x, "signs"), shape[-1]
    fill = f"fill_signs($y, {int(a['value'] > 0)}, {math.prod(shape[:-1])}, {channels});"
    return padded(program, x, a["padding"], fill)


def padded(program: Program, x: int, padding: Sequence[Sequence[int]], fill: str) -> int:
    """A value in an array that a call has filled; of signs, whole pixels move."""
    kind, old = program.values[x].kind, program.values[x].shape
    shape = tuple(low + n + high for n, (low, high) in zip(old, padding, strict=True))
    sizes, outer = list(old), list(shape)
    if kind == "signs":
        sizes[-1] = outer[-1] = -(-old[-1] // WORD)
    steps = row_major(outer)
    start = sum(low * s for (low, _), s in zip(padding, steps, strict=True))
    move = _move(program, sizes, 0, row_major(sizes), start, steps)
    kernels = (fill.partition("(")[0], _kernel(kind))
    code = f"{fill} {_kernel(kind)}(&{move}, $0, $y);"
    return program.emit(kernels, code, Type(kind, shape), whole=(x,), at_once=True)
