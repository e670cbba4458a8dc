"""All operations of a graph: what each takes, its attributes, and the type of its result.

Both `freeze`, which makes graphs, and `load`, which may be given a hostile file, ask `infer`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ovsw_jax.deploy.graph import Kind, Type

# Elements of a result per sample: a file can't ask for more than 1 GiB by a line of text.
MAX_ELEMENTS = 2**28
# float32 holds all integers up to here, so every target can sum signs in it.
MAX_SUM = 2**24


class Operand(NamedTuple):
    """What is known of an input: its type, and whether it is a tensor or a number of the graph."""

    type: Type
    is_constant: bool

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one sample, or of the constant."""
        return self.type.shape


Attributes = Mapping[str, Any]
_Result = Callable[[Sequence[Operand], Attributes], Type]


class Operation(NamedTuple):
    """An operation.

    Fields:
      inputs: least and greatest number of inputs.
      attributes: for each name, a check of its value, and the value that is meant where it is
        absent; `...` where it must be there.
      result: gives the type of the result, or raises ValueError.
    """

    inputs: tuple[int, int]
    attributes: Mapping[str, tuple[Callable[[object], bool], Any]]
    result: _Result


def infer(op: str, operands: Sequence[Operand], attributes: Attributes) -> Type:
    """The type of a node's result.

    Raises:
      ValueError: if there is no such operation, or it does not take these inputs and attributes.
    """
    if op not in OPERATIONS:
        raise ValueError(f"operation {op!r} is unknown; this version knows {', '.join(OPERATIONS)}")
    operation = OPERATIONS[op]
    least, most = operation.inputs
    if not least <= len(operands) <= most:
        raise ValueError(f"{op} takes {least} to {most} inputs, not {len(operands)}")
    if unknown := set(attributes) - set(operation.attributes):
        raise ValueError(f"{op} has no attribute {sorted(unknown)[0]!r}")
    filled = with_defaults(op, attributes)
    for name, (check, _) in operation.attributes.items():
        if not check(filled[name]):
            raise ValueError(f"{name}={filled[name]!r} is no such attribute of {op}")
    result = operation.result(operands, filled)
    if any(n < 1 for n in result.shape) or math.prod(result.shape) > MAX_ELEMENTS:
        raise ValueError(
            f"{op} would give shape {list(result.shape)}: a result has at least one element, and "
            f"at most {MAX_ELEMENTS} per sample"
        )
    return result


def with_defaults(op: str, attributes: Attributes) -> dict[str, Any]:
    """All attributes of an operation, those that are absent with the value that is meant.

    Raises:
      ValueError: if one is absent that must be there.
    """
    filled = {}
    for name, (_, default) in OPERATIONS[op].attributes.items():
        filled[name] = attributes.get(name, default)
        if filled[name] is ...:
            raise ValueError(f"{op} lacks its attribute {name!r}")
    return filled


def windows(spatial: Sequence[int], size: Sequence[int], attributes: Attributes) -> tuple[int, ...]:
    """How many windows fit along each spatial axis.

    Raises:
      ValueError: if strides, padding or dilation have another number of axes, or no window fits.
    """
    axes = len(size)
    strides = attributes["strides"] or (1,) * axes
    padding = attributes["padding"] or ((0, 0),) * axes
    dilation = attributes.get("dilation") or (1,) * axes
    if not len(spatial) == len(strides) == len(padding) == len(dilation) == axes:
        raise ValueError(f"a window of {axes} axes does not fit {len(spatial)} spatial axes")
    counts = tuple(
        (n + low + high - (k - 1) * d - 1) // s + 1
        for n, k, s, d, (low, high) in zip(spatial, size, strides, dilation, padding, strict=True)
    )
    if min(counts) < 1:
        raise ValueError(f"no window of {list(size)} fits into {list(spatial)}")
    return counts


# --- types of results


def _need(holds: bool, message: str) -> None:
    if not holds:
        raise ValueError(message)


def _needs_value(operand: Operand) -> None:
    _need(not operand.is_constant, "a constant stands where a result is needed")


def _numbers(*operands: Operand) -> None:
    _need(all(o.type.kind != "bool" for o in operands), "bools stand where numbers are needed")


def _elementwise(kind: Kind) -> _Result:
    def result(operands: Sequence[Operand], _: Attributes) -> Type:
        _numbers(*operands)
        return Type(kind, _broadcast(operands))

    return result


def _broadcast(operands: Sequence[Operand]) -> tuple[int, ...]:
    """The shape of all operands together: axes of size 1 repeat, constants align at the end."""
    values = [o for o in operands if not o.is_constant]
    _need(bool(values), "all inputs are constants")
    rank = len(values[0].shape)
    _need(all(len(v.shape) == rank for v in values), "results of different ranks")
    _need(all(len(o.shape) <= rank for o in operands), "a constant has more axes than the result")
    try:
        return np.broadcast_shapes(*(o.shape for o in operands))
    except ValueError:
        shapes = ", ".join(str(list(o.shape)) for o in operands)
        raise ValueError(f"shapes {shapes} do not fit each other") from None


def _select(operands: Sequence[Operand], _: Attributes) -> Type:
    condition, *others = operands
    _need(condition.type.kind == "bool", "select needs bools first")
    _numbers(*others)
    return Type("float32", _broadcast(operands))


def _not(operands: Sequence[Operand], _: Attributes) -> Type:
    _need(operands[0].type.kind == "bool", "not needs bools")
    return operands[0].type


def _function(operands: Sequence[Operand], _: Attributes) -> Type:
    _needs_value(operands[0])
    _numbers(operands[0])
    return Type("float32", operands[0].shape)


def _per_channel(operands: Sequence[Operand], _: Attributes) -> Type:
    x, *parameters = operands
    for parameter in parameters:
        fits = parameter.is_constant and parameter.shape in ((), x.shape[-1:])
        _need(fits and parameter.type.kind == "float32", "needs one float32 number per channel")
    return _function(operands[:1], {})


def _sign(operands: Sequence[Operand], _: Attributes) -> Type:
    return Type("signs", _function(operands, {}).shape)


def _threshold(operands: Sequence[Operand], _: Attributes) -> Type:
    x, *parameters = operands
    _needs_value(x)
    _need(x.type.kind == "int32", "threshold needs sums of signs")
    kinds: tuple[Kind, ...] = ("int32", "signs")
    for parameter, kind in zip(parameters, kinds, strict=False):
        fits = parameter.is_constant and parameter.type == Type(kind, x.shape[-1:])
        _need(fits, f"threshold needs one constant of {kind} per channel")
    return Type("signs", x.shape)


def _conv(operands: Sequence[Operand], attributes: Attributes) -> Type:
    x, kernel = operands
    _check_weights(x, kernel)
    _need(len(x.shape) >= 2 and len(kernel.shape) == len(x.shape) + 1, "conv of such ranks")
    filters, *size, channels = kernel.shape
    groups = attributes["groups"]
    fits = x.shape[-1] == channels * groups and filters % groups == 0
    _need(fits, f"{groups} groups of {channels} channels do not fit {x.shape[-1]} channels")
    counts = windows(x.shape[:-1], size, attributes)
    return Type(_product(x, kernel, channels * math.prod(size)), (*counts, filters))


def _dense(operands: Sequence[Operand], _: Attributes) -> Type:
    x, kernel = operands
    _check_weights(x, kernel)
    _need(len(x.shape) >= 1 and len(kernel.shape) == 2, "dense of such ranks")
    _need(kernel.shape[1] == x.shape[-1], "dense weights do not fit the input")
    return Type(_product(x, kernel, x.shape[-1]), (*x.shape[:-1], kernel.shape[0]))


def _check_weights(x: Operand, kernel: Operand) -> None:
    _needs_value(x)
    _numbers(x)
    _need(kernel.is_constant and kernel.type.kind in ("float32", "signs"), "needs weights")


def _product(x: Operand, kernel: Operand, terms: int) -> Kind:
    if x.type.kind != "signs" or kernel.type.kind != "signs":
        return "float32"
    _need(terms <= MAX_SUM, f"a sum of {terms} signs is not exact in float32")
    return "int32"


def _max_pool(operands: Sequence[Operand], attributes: Attributes) -> Type:
    (x,) = operands
    return Type(x.type.kind, _pooled(x, attributes))


def _avg_pool(operands: Sequence[Operand], attributes: Attributes) -> Type:
    return Type("float32", _pooled(operands[0], attributes))


def _pooled(x: Operand, attributes: Attributes) -> tuple[int, ...]:
    _needs_value(x)
    _numbers(x)
    _need(len(x.shape) >= 2, "a pool needs spatial axes")
    counts = windows(x.shape[:-1], attributes["window"], attributes)
    pads = attributes["padding"] or ()
    inside = all(max(p) < k for p, k in zip(pads, attributes["window"], strict=False))
    _need(inside, "a window would see padding alone")
    return (*counts, x.shape[-1])


def _reduce(keep: bool) -> _Result:
    def result(operands: Sequence[Operand], attributes: Attributes) -> Type:
        (x,) = operands
        _needs_value(x)
        _numbers(x)
        axes = _axes_of(x, attributes["axes"])
        shape = tuple(n for a, n in enumerate(x.shape) if a not in axes)
        return Type(x.type.kind if keep else "float32", shape)

    return result


def _axes_of(x: Operand, axes: Sequence[int]) -> Sequence[int]:
    fits = len(set(axes)) == len(axes) and all(a < len(x.shape) for a in axes)
    _need(fits, f"axes {list(axes)} of an array with {len(x.shape)}")
    return axes


def _pad(operands: Sequence[Operand], attributes: Attributes) -> Type:
    (x,) = operands
    _needs_value(x)
    _numbers(x)
    pads = attributes["padding"]
    _need(len(pads) == len(x.shape), "padding of another number of axes")
    shape = tuple(n + low + high for n, (low, high) in zip(x.shape, pads, strict=True))
    stays = x.type.kind == "signs" and attributes["value"] in (1, -1)
    return Type("signs" if stays else "float32", shape)


def _reshape(operands: Sequence[Operand], attributes: Attributes) -> Type:
    (x,) = operands
    _needs_value(x)
    shape = tuple(attributes["shape"])
    _need(math.prod(shape) == math.prod(x.shape), f"{list(x.shape)} can't become {list(shape)}")
    return Type(x.type.kind, shape)


def _broadcast_to(operands: Sequence[Operand], attributes: Attributes) -> Type:
    (x,) = operands
    _needs_value(x)
    shape = tuple(attributes["shape"])
    fits = len(shape) == len(x.shape)
    fits = fits and all(m in (1, n) for m, n in zip(x.shape, shape, strict=True))
    _need(fits, f"{list(x.shape)} can't be repeated to {list(shape)}")
    return Type(x.type.kind, shape)


def _transpose(operands: Sequence[Operand], attributes: Attributes) -> Type:
    (x,) = operands
    _needs_value(x)
    order = attributes["axes"]
    _need(sorted(order) == list(range(len(x.shape))), f"{list(order)} is no order of the axes")
    return Type(x.type.kind, tuple(x.shape[a] for a in order))


def _slice(operands: Sequence[Operand], attributes: Attributes) -> Type:
    (x,) = operands
    _needs_value(x)
    start, stop, step = attributes["start"], attributes["stop"], attributes["step"]
    step = step or (1,) * len(x.shape)
    _need(len(start) == len(stop) == len(step) == len(x.shape), "slice of other axes")
    inside = all(a < b <= n for a, b, n in zip(start, stop, x.shape, strict=True))
    _need(inside, f"slice beyond {list(x.shape)}")
    return Type(
        x.type.kind,
        tuple(-(-(b - a) // s) for a, b, s in zip(start, stop, step, strict=True)),
    )


def _reverse(operands: Sequence[Operand], attributes: Attributes) -> Type:
    _needs_value(operands[0])
    _axes_of(operands[0], attributes["axes"])
    return operands[0].type


def _concat(operands: Sequence[Operand], attributes: Attributes) -> Type:
    axis, first = attributes["axis"], operands[0]
    _need(axis < len(first.shape), "concat along an axis that is not there")
    kinds = {o.type.kind for o in operands}
    _need("bool" not in kinds or kinds == {"bool"}, "concat of bools with numbers")
    for operand in operands:
        _needs_value(operand)
        same = len(operand.shape) == len(first.shape) and all(
            a == axis or m == n
            for a, (m, n) in enumerate(zip(operand.shape, first.shape, strict=True))
        )
        _need(same, "concat of shapes that do not fit")
    shape = list(first.shape)
    shape[axis] = sum(o.shape[axis] for o in operands)
    return Type(first.type.kind if len(kinds) == 1 else "float32", tuple(shape))


# --- checks of attributes, of which a file may hold any


def _is_int(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= MAX_ELEMENTS


def _is_axis(value: object) -> bool:
    return _is_int(value, 0)


def _is_size(value: object) -> bool:
    return _is_int(value, 1)


def _are(check: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: isinstance(value, list | tuple) and all(map(check, value))


def _is_pair(value: object) -> bool:
    return _are(_is_axis)(value) and len(value) == 2  # type: ignore[arg-type]


def _is_number(value: object) -> bool:
    return isinstance(value, float) and np.isfinite(value).item()


def _or_none(check: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: value is None or check(value)


_SIZES, _AXES, _PAIRS = _are(_is_size), _are(_is_axis), _are(_is_pair)
_STRIDES = {"strides": (_or_none(_SIZES), None), "padding": (_or_none(_PAIRS), None)}
_POOL = {"window": (_SIZES, ...), **_STRIDES}
_ANY = 2**16  # inputs of concat
# What each axis has where the attribute is None.
NEUTRAL: Mapping[str, Any] = {"strides": 1, "dilation": 1, "step": 1, "padding": (0, 0)}

OPERATIONS: Mapping[str, Operation] = {
    # products
    "conv": Operation(
        (2, 2),
        {**_STRIDES, "dilation": (_or_none(_SIZES), None), "groups": (_is_size, 1)},
        _conv,
    ),
    "dense": Operation((2, 2), {}, _dense),
    # to signs
    "sign": Operation((1, 1), {}, _sign),
    "threshold": Operation((2, 3), {}, _threshold),
    # of each channel
    "affine": Operation((3, 3), {}, _per_channel),
    "prelu": Operation((2, 2), {}, _per_channel),
    # of each element
    "clip": Operation(
        (1, 1),
        {"low": (_or_none(_is_number), None), "high": (_or_none(_is_number), None)},
        _function,
    ),
    **{
        name: Operation((1, 1), {}, _function)
        for name in ("abs", "exp", "log", "tanh", "sigmoid", "erf", "sqrt")
    },
    **{
        name: Operation((2, 2), {}, _elementwise("float32"))
        for name in ("add", "sub", "mul", "div", "max", "min", "pow")
    },
    **{
        name: Operation((2, 2), {}, _elementwise("bool"))
        for name in ("equal", "greater", "greater_equal")
    },
    "not": Operation((1, 1), {}, _not),
    "select": Operation((3, 3), {}, _select),
    # of several elements
    "max_pool": Operation((1, 1), _POOL, _max_pool),
    "avg_pool": Operation((1, 1), _POOL, _avg_pool),
    "mean": Operation((1, 1), {"axes": (_AXES, ...)}, _reduce(keep=False)),
    "reduce_max": Operation((1, 1), {"axes": (_AXES, ...)}, _reduce(keep=True)),
    "reduce_min": Operation((1, 1), {"axes": (_AXES, ...)}, _reduce(keep=True)),
    # of places
    "pad": Operation((1, 1), {"padding": (_PAIRS, ...), "value": (_is_number, 0.0)}, _pad),
    "reshape": Operation((1, 1), {"shape": (_SIZES, ...)}, _reshape),
    "broadcast": Operation((1, 1), {"shape": (_SIZES, ...)}, _broadcast_to),
    "transpose": Operation((1, 1), {"axes": (_AXES, ...)}, _transpose),
    "slice": Operation(
        (1, 1),
        {"start": (_AXES, ...), "stop": (_SIZES, ...), "step": (_or_none(_SIZES), None)},
        _slice,
    ),
    "reverse": Operation((1, 1), {"axes": (_AXES, ...)}, _reverse),
    "concat": Operation((1, _ANY), {"axis": (_is_axis, ...)}, _concat),
}
