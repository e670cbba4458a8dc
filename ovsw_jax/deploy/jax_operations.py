"""What each operation of JAX is in a graph: a handler for each, by the name of its primitive."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ovsw_jax.deploy.reader import Handler, Reader, Result, Value


def _results_like(operation: Any) -> Result:
    aval = operation.outvars[0].aval
    return Result(-1, tuple(aval.shape), aval.dtype)


def _elementwise(op: str) -> Handler:
    def handler(reader: Reader, operation: Any, inputs: Sequence[Value]) -> Result:
        _check_floats(reader, operation)
        return reader.emit(op, _results_like(operation), *inputs)

    return handler


def _check_floats(reader: Reader, operation: Any) -> None:
    """Integers wrap, and division of them truncates: only floats are computed with."""
    for atom in (*operation.invars, *operation.outvars):
        dtype = atom.aval.dtype
        if not jnp.issubdtype(dtype, jnp.floating):
            raise reader.refusal(
                f"the operation {operation.primitive.name} on {dtype}",
                "Convert the numbers to float32 first.",
            )


def _compare(op: str, *, swap: bool = False, negate: bool = False) -> Handler:
    def handler(reader: Reader, operation: Any, inputs: Sequence[Value]) -> Result:
        if jnp.issubdtype(operation.invars[0].aval.dtype, jnp.bool_):
            raise reader.refusal(f"the operation {operation.primitive.name} on bool")
        like = _results_like(operation)
        result = reader.emit(op, like, *(reversed(inputs) if swap else inputs))
        return reader.emit("not", like, result) if negate else result

    return handler


def _with_number(op: str, number: float, *, first: bool = False) -> Handler:
    def handler(reader: Reader, operation: Any, inputs: Sequence[Value]) -> Result:
        _check_floats(reader, operation)
        both = (np.float32(number), inputs[0]) if first else (inputs[0], np.float32(number))
        return reader.emit(op, _results_like(operation), *both)

    return handler


def _composed(*steps: tuple[str, float | None, bool]) -> Handler:
    """Several elementwise operations: name, a number that each takes too, whether it is first."""

    def handler(reader: Reader, operation: Any, inputs: Sequence[Value]) -> Result:
        _check_floats(reader, operation)
        like, x = _results_like(operation), inputs[0]
        for op, number, first in steps:
            operands = (x,) if number is None else (x, np.float32(number))
            x = reader.emit(op, like, *(reversed(operands) if first else operands))
        return x

    return handler


def _square(reader: Reader, operation: Any, inputs: Sequence[Value]) -> Result:
    _check_floats(reader, operation)
    return reader.emit("mul", _results_like(operation), inputs[0], inputs[0])


def _integer_pow(reader: Reader, operation: Any, inputs: Sequence[Value]) -> Result:
    _check_floats(reader, operation)
    (x,), y, like = inputs, operation.params["y"], _results_like(operation)
    if not 1 <= abs(y) <= 4:
        return reader.emit("pow", like, x, np.float32(y))
    result = x
    for _ in range(abs(y) - 1):
        result = reader.emit("mul", like, result, x)
    return reader.emit("div", like, np.float32(1), result) if y < 0 else result


def _clamp(reader: Reader, operation: Any, inputs: Sequence[Value]) -> Result:
    _check_floats(reader, operation)
    low, x, high = inputs
    like = _results_like(operation)
    return reader.emit("min", like, reader.emit("max", like, x, low), high)


def _select(reader: Reader, operation: Any, inputs: Sequence[Value]) -> Result:
    condition, *cases = inputs
    if len(cases) != 2 or not isinstance(condition, Result):
        raise reader.refusal("a choice by a constant condition", "Compute it outside the network.")
    if jnp.issubdtype(operation.outvars[0].aval.dtype, jnp.bool_):
        raise reader.refusal("a choice between bools")
    return reader.emit("select", _results_like(operation), condition, cases[1], cases[0])


def _convert(reader: Reader, operation: Any, inputs: Sequence[Value]) -> Result:
    """To a float: nothing. All is computed in float32, whatever training rounded to."""
    (x,), like = inputs, _results_like(operation)
    kinds = [_numeric_kind(dtype) for dtype in (x.dtype, like.dtype)]
    if kinds[0] == "bool" and kinds[1] != "bool":
        return reader.emit("select", like, x, np.float32(1), np.float32(0))
    if kinds[0] == kinds[1] or kinds == ["int", "float"]:
        return like._replace(number=x.number)
    raise reader.refusal(f"a conversion from {x.dtype} to {like.dtype}")


def _numeric_kind(dtype: Any) -> str:
    if jnp.issubdtype(dtype, jnp.floating):
        return "float"
    return "bool" if jnp.issubdtype(dtype, jnp.bool_) else "int"


def _same(reader: Reader, operation: Any, inputs: Sequence[Value]) -> list[Value]:
    return list(inputs)


# --- operations that move elements; axis 0 is the batch, which no sample sees


def _keep_batch(reader: Reader, holds: bool, what: str) -> None:
    if not holds:
        raise reader.refusal(
            f"{what} across the batch axis", "Each sample must be computed by itself."
        )


def _reshaped(reader: Reader, operation: Any, inputs: Sequence[Value]) -> Result:
    like = _results_like(operation)
    return _to_shape(reader, inputs[0], like)


def _to_shape(reader: Reader, x: Result, like: Result) -> Result:
    batch = like.shape[:1] == x.shape[:1]
    _keep_batch(reader, batch, f"a reshape from {x.shape} to {like.shape}")
    return reader.emit("reshape", like, x, shape=like.shape[1:])


def _broadcast(reader: Reader, operation: Any, inputs: Sequence[Value]) -> Result:
    (x,), like = inputs, _results_like(operation)
    places = operation.params["broadcast_dimensions"]
    _keep_batch(reader, places[:1] == (0,) and like.shape[0] == x.shape[0], "a broadcast")
    shape = [1] * len(like.shape)
    for place, size in zip(places, x.shape, strict=True):
        shape[place] = size
    x = _to_shape(reader, x, like._replace(shape=tuple(shape)))
    return reader.emit("broadcast", like, x, shape=like.shape[1:])


def _transpose(reader: Reader, operation: Any, inputs: Sequence[Value]) -> Result:
    return _moved(reader, inputs[0], operation.params["permutation"])


def _moved(reader: Reader, x: Result, order: Sequence[int]) -> Result:
    _keep_batch(reader, order[0] == 0, f"a transpose {tuple(order)}")
    like = x._replace(shape=tuple(x.shape[a] for a in order))
    return reader.emit("transpose", like, x, axes=tuple(a - 1 for a in order[1:]))


def _concatenate(reader: Reader, operation: Any, inputs: Sequence[Value]) -> Result:
    axis = operation.params["dimension"]
    _keep_batch(reader, axis != 0, "a concatenation")
    if not all(isinstance(x, Result) for x in inputs):
        raise reader.refusal("a concatenation with a constant", "Use jnp.pad for a border.")
    return reader.emit("concat", _results_like(operation), *inputs, axis=axis - 1)


def _pad(reader: Reader, operation: Any, inputs: Sequence[Value]) -> Result:
    x, value = inputs
    config = operation.params["padding_config"]
    _keep_batch(reader, tuple(config[0]) == (0, 0, 0), "padding")
    if any(inner for _, _, inner in config):
        raise reader.refusal("padding between elements")
    if not isinstance(x, Result) or isinstance(value, Result):
        raise reader.refusal("padding with a result")
    sizes = zip(config, x.shape, strict=True)
    starts, limits = zip(*((max(-a, 0), n - max(-b, 0)) for (a, b, _), n in sizes), strict=True)
    if any(starts) or limits != x.shape:
        x = _sliced(reader, x, starts, limits, (1,) * len(starts))
    pads = tuple((max(int(low), 0), max(int(high), 0)) for low, high, _ in config[1:])
    # The value is known once the constants are: it is an attribute of the typed node.
    return reader.emit("pad", _results_like(operation), x, value, padding=pads)


def _slice(reader: Reader, operation: Any, inputs: Sequence[Value]) -> Result:
    params = operation.params
    starts, limits = params["start_indices"], params["limit_indices"]
    return _sliced(reader, inputs[0], starts, limits, params["strides"] or (1,) * len(starts))


def _sliced(reader: Reader, x: Result, starts: Any, limits: Any, strides: Sequence[int]) -> Result:
    whole = (starts[0], limits[0], strides[0]) == (0, x.shape[0], 1)
    _keep_batch(reader, whole, "a slice")
    shape = tuple(-(-(b - a) // s) for a, b, s in zip(starts, limits, strides, strict=True))
    return reader.emit(
        "slice",
        x._replace(shape=shape),
        x,
        start=tuple(map(int, starts[1:])),
        stop=tuple(map(int, limits[1:])),
        step=tuple(map(int, strides[1:])),
    )


def _dynamic_slice(reader: Reader, operation: Any, inputs: Sequence[Value]) -> Result:
    x, *starts = inputs
    sizes = operation.params["slice_sizes"]
    numbers = [s for s in starts if not isinstance(s, Result | jax.core.Tracer)]
    if len(numbers) != len(starts) or not isinstance(x, Result):
        raise reader.refusal("a slice that starts where a computation says")
    spans = zip(numbers, sizes, x.shape, strict=True)
    low = [min(max(int(s), 0), n - size) for s, size, n in spans]
    high = [a + size for a, size in zip(low, sizes, strict=True)]
    return _sliced(reader, x, low, high, (1,) * len(low))


def _split(reader: Reader, operation: Any, inputs: Sequence[Value]) -> list[Result]:
    (x,), axis, start, parts = inputs, operation.params["axis"], 0, []
    for size in operation.params["sizes"]:
        low, high = [0] * len(x.shape), list(x.shape)
        low[axis], high[axis] = start, start + size
        parts.append(_sliced(reader, x, low, high, (1,) * len(low)))
        start += size
    return parts


def _reverse(reader: Reader, operation: Any, inputs: Sequence[Value]) -> Result:
    axes = operation.params["dimensions"]
    _keep_batch(reader, 0 not in axes, "a reversal")
    axes = tuple(a - 1 for a in axes)
    return reader.emit("reverse", _results_like(operation), inputs[0], axes=axes)


# --- operations of several elements


def _reduce(op: str) -> Handler:
    def handler(reader: Reader, operation: Any, inputs: Sequence[Value]) -> Result:
        _check_floats(reader, operation)
        (x,), axes, like = inputs, operation.params["axes"], _results_like(operation)
        _keep_batch(reader, 0 not in axes, f"the operation {operation.primitive.name}")
        result = reader.emit(op, like, x, axes=tuple(a - 1 for a in axes))
        count = math.prod(x.shape[a] for a in axes)
        return reader.emit("mul", like, result, np.float32(count)) if op == "mean" else result

    return handler


def _pool(op: str) -> Handler:
    def handler(reader: Reader, operation: Any, inputs: Sequence[Value]) -> Result:
        _check_floats(reader, operation)
        (x,), params, like = inputs, operation.params, _results_like(operation)
        window, strides, pads = (
            tuple(params[k]) for k in ("window_dimensions", "window_strides", "padding")
        )
        _keep_batch(reader, (window[0], strides[0], pads[0]) == (1, 1, (0, 0)), "a pool")
        if (window[-1], strides[-1], pads[-1]) != (1, 1, (0, 0)):
            raise reader.refusal("a pool over channels", "The last axis must be that of channels.")
        if {*params["base_dilation"], *params["window_dilation"]} != {1}:
            raise reader.refusal("a pool with dilation")
        result = reader.emit(
            op,
            like,
            x,
            window=window[1:-1],
            strides=strides[1:-1],
            padding=tuple((int(a), int(b)) for a, b in pads[1:-1]),
        )
        count = np.float32(math.prod(window))
        return reader.emit("mul", like, result, count) if op == "avg_pool" else result

    return handler


def _dot(reader: Reader, operation: Any, inputs: Sequence[Value]) -> Result:
    _check_floats(reader, operation)
    x, weights = inputs
    (of_x, of_weights), batch = operation.params["dimension_numbers"]
    if isinstance(x, Result) and isinstance(weights, Result):
        raise reader.refusal("a product of two results, as in attention")
    if any(batch):
        raise reader.refusal("a product with a batch of constant matrices")
    swapped = not isinstance(x, Result)
    if swapped:
        x, weights, of_x, of_weights = weights, x, of_weights, of_x
    _keep_batch(reader, 0 not in of_x, "a product")
    kept = [a for a in range(len(x.shape)) if a not in of_x]
    new = [a for a in range(weights.ndim) if a not in of_weights]
    x = _moved(reader, x, [*kept, *of_x])
    free = x.shape[: len(kept)]
    terms = math.prod(x.shape[len(kept) :])
    x = _to_shape(reader, x, x._replace(shape=(*free, terms)))
    outputs = [weights.shape[a] for a in new]
    matrix = jnp.transpose(weights, [*new, *of_weights]).reshape(-1, terms)
    like = _results_like(operation)
    result = reader.emit("dense", like._replace(shape=(*free, len(matrix))), x, matrix)
    result = _to_shape(reader, result, like._replace(shape=(*free, *outputs)))
    if swapped:  # the axes of the constant come first, so the batch is behind them
        raise reader.refusal("a product whose first operand is constant", "Put the input first.")
    return result


def _convolution(reader: Reader, operation: Any, inputs: Sequence[Value]) -> Result:
    _check_floats(reader, operation)
    (x, kernel), params = inputs, operation.params
    if not isinstance(x, Result) or isinstance(kernel, Result):
        raise reader.refusal("a convolution whose kernel is computed from the input")
    if params["batch_group_count"] != 1 or set(params["lhs_dilation"]) - {1}:
        raise reader.refusal(
            "a transposed convolution", "Repeat the pixels, then convolve without dilated input."
        )
    if any(n < 0 for pair in params["padding"] for n in pair):
        raise reader.refusal("a convolution with negative padding", "Slice its input first.")
    numbers = params["dimension_numbers"]
    batch, channels, *spatial = numbers.lhs_spec
    filters, depth, *size = numbers.rhs_spec
    _keep_batch(reader, batch == 0, "a convolution")
    x = _moved(reader, x, [batch, *spatial, channels])
    kernel = jnp.transpose(kernel, [filters, *size, depth])
    like = _results_like(operation)
    batch, channels, *spatial = numbers.out_spec
    forward = [batch, *spatial, channels]
    result = reader.emit(
        "conv",
        like._replace(shape=tuple(like.shape[a] for a in forward)),
        x,
        kernel,
        strides=tuple(params["window_strides"]),
        padding=tuple((int(a), int(b)) for a, b in params["padding"]),
        dilation=tuple(params["rhs_dilation"]),
        groups=params["feature_group_count"],
    )
    return _moved(reader, result, [forward.index(a) for a in range(len(forward))])


HANDLERS: dict[str, Handler] = {
    **{name: _elementwise(name) for name in ("add", "sub", "mul", "div", "max", "min", "pow")},
    **{name: _elementwise(name) for name in ("abs", "exp", "log", "tanh", "erf", "sqrt")},
    "add_any": _elementwise("add"),
    "logistic": _elementwise("sigmoid"),
    "neg": _with_number("mul", -1),
    "square": _square,
    "integer_pow": _integer_pow,
    "rsqrt": _composed(("sqrt", None, False), ("div", 1, True)),
    "expm1": _composed(("exp", None, False), ("sub", 1, False)),
    "log1p": _composed(("add", 1, False), ("log", None, False)),
    "exp2": _composed(("mul", math.log(2), False), ("exp", None, False)),
    "erfc": _composed(("erf", None, False), ("sub", 1, True)),
    "clamp": _clamp,
    "eq": _compare("equal"),
    "ne": _compare("equal", negate=True),
    "gt": _compare("greater"),
    "ge": _compare("greater_equal"),
    "lt": _compare("greater", swap=True),
    "le": _compare("greater_equal", swap=True),
    "not": lambda reader, operation, inputs: reader.emit("not", _results_like(operation), *inputs),
    "select_n": _select,
    "convert_element_type": _convert,
    **dict.fromkeys(("copy", "copy_p", "name", "stop_gradient"), _same),
    **dict.fromkeys(("optimization_barrier", "sharding_constraint"), _same),
    "reshape": _reshaped,
    "squeeze": _reshaped,
    "expand_dims": _reshaped,
    "broadcast_in_dim": _broadcast,
    "transpose": _transpose,
    "concatenate": _concatenate,
    "pad": _pad,
    "slice": _slice,
    "dynamic_slice": _dynamic_slice,
    "split": _split,
    "rev": _reverse,
    "reduce_sum": _reduce("mean"),
    "reduce_max": _reduce("reduce_max"),
    "reduce_min": _reduce("reduce_min"),
    "reduce_window_sum": _pool("avg_pool"),
    "reduce_window_max": _pool("max_pool"),
    "dot_general": _dot,
    "conv_general_dilated": _convolution,
}
