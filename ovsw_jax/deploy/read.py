"""Reads the program of a network: one operation of a graph for each operation of JAX.

What depends on no input is a constant. All constants are computed by one compiled program: the
reader runs while JAX traces it, so that what the network computes of its parameters is traced, and
what it computes of its input is written down.
"""

import contextlib
import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from ovsw_jax.deploy.builder import Builder
from ovsw_jax.deploy.graph import Graph, Ref, Type
from ovsw_jax.graph.marked_layers import layer_of
from ovsw_jax.graph.trace import Trace


class CannotFreezeError(ValueError):
    """A network has a part that no graph expresses."""


class _Result(NamedTuple):
    """A number in the list of nodes, and what it is in JAX: shape with the batch, and dtype."""

    number: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


class _Refused(NamedTuple):
    """What can't be expressed. It is an error only where the network needs it."""

    why: str


class _Constant(NamedTuple):
    number: int


@dataclasses.dataclass
class _RawNode:
    op: str
    inputs: tuple[Any, ...]
    attributes: dict[str, Any]
    layer: str


_FEW = 8
_Value = Any  # a _Result, a _Refused, or an array, which is a constant
# Gives the results of an operation, from its parameters and its inputs.
_Handler = Callable[["_Reader", Any, Sequence[_Value]], Any]


def read(trace: Trace, arrays: Sequence[Any]) -> Graph:
    """The graph of a traced call with one input.

    Args:
      trace: of a network in evaluation mode.
      arrays: those of the network, in the order in which the program takes them.

    Raises:
      CannotFreezeError: if something can't be expressed; it names the layer and the operation.
    """
    program, paths = trace.program, ["/".join(map(str, path)) for path in trace.layers]
    (variable,) = trace.inputs.values()
    aval: Any = variable.aval
    reader = _Reader(paths, aval.shape[0])

    def constants(arrays: Sequence[Any]) -> list[Any]:
        given = _Result(0, aval.shape, aval.dtype)
        results = reader.run(program.jaxpr, program.consts, [*arrays, given], "")
        reader.finish(results)
        return reader.constants

    values = [np.asarray(value) for value in jax.jit(constants)(list(arrays))]
    return _typed(reader, values, Type("float32", tuple(aval.shape[1:])))


class _Reader:
    """The state of reading: nodes and constants so far."""

    def __init__(self, paths: Sequence[str], batch: int):
        self.paths, self.batch = paths, batch
        self.nodes: list[_RawNode] = []
        self.constants: list[Any] = []
        self.output = 0
        self.scope = ""

    @property
    def layer(self) -> str:
        """Path of the layer whose operation is read."""
        number = layer_of(self.scope)
        return "" if number is None else self.paths[number]

    def run(
        self, jaxpr: Jaxpr, consts: Sequence[Any], given: Sequence[_Value], scope: str
    ) -> list[_Value]:
        """Reads a program; gives its results."""
        known: dict[Any, _Value] = dict(zip(jaxpr.constvars, consts, strict=True))
        known.update(zip(jaxpr.invars, given, strict=True))

        def value(atom: Any) -> _Value:
            return atom.val if isinstance(atom, Literal) else known[atom]

        for operation in jaxpr.eqns:
            inside = f"{scope}/{operation.source_info.name_stack}"
            self.scope = inside
            inputs = [value(x) for x in operation.invars]
            results = self._read(jaxpr, operation, inputs, inside)
            known.update(zip(operation.outvars, results, strict=True))
        return [value(x) for x in jaxpr.outvars]

    def _read(
        self, jaxpr: Jaxpr, operation: Any, inputs: list[_Value], scope: str
    ) -> Sequence[_Value]:
        name = operation.primitive.name
        if name in _CALLS:
            return self._call(operation.params[_CALLS[name]], inputs, scope)
        unknown = [x for x in inputs if isinstance(x, _Result | _Refused)]
        if name == "cond" and not isinstance(inputs[0], _Result | _Refused):
            branch = self._branch(operation, inputs[0])
            if branch is not None:
                return self._call(branch, inputs[1:], scope)
        if not unknown:
            if name == "platform_index":
                return [_PlatformIndex(operation.params["platforms"])]
            return self._constants_of(jaxpr, operation, inputs)
        if name == "scan":
            return self._scan(operation, inputs, scope)
        count = len(operation.outvars)
        refused = next((x for x in unknown if isinstance(x, _Refused)), None)
        if refused is None:
            try:
                results = self._handled(operation, name, inputs)
                return results if isinstance(results, list) else [results]
            except CannotFreezeError as error:
                refused = _Refused(str(error))
        return [refused] * count

    def _constants_of(self, jaxpr: Jaxpr, operation: Any, inputs: list[_Value]) -> Sequence[_Value]:
        """Traced, but for a few numbers, which a slice may need to know."""
        pairs = zip(operation.invars, inputs, strict=True)
        given = {atom: value for atom, value in pairs if not isinstance(atom, Literal)}
        alone = jaxpr.replace(
            constvars=[],
            invars=list(given),
            outvars=list(operation.outvars),
            eqns=[operation],
            debug_info=jaxpr.debug_info.with_unknown_names(),
        )
        few = all(math.prod(v.aval.shape) <= _FEW for v in operation.outvars)
        now = few and not any(isinstance(x, jax.core.Tracer) for x in inputs)
        with jax.ensure_compile_time_eval() if now else contextlib.nullcontext():
            return jax.core.eval_jaxpr(alone, (), *given.values())

    def _handled(self, operation: Any, name: str, inputs: Sequence[_Value]) -> Any:
        if name not in _HANDLERS:
            raise self.refusal(f"the operation {name}", _REMEDIES.get(name, ""))
        return _HANDLERS[name](self, operation, inputs)

    def _call(self, program: Any, inputs: Sequence[_Value], scope: str) -> list[_Value]:
        if isinstance(program, ClosedJaxpr):
            return self.run(program.jaxpr, program.consts, inputs, scope)
        return self.run(program, (), inputs, scope)

    def _branch(self, operation: Any, index: Any) -> Any:
        """The branch that is taken, where that is known: of platforms, the one for all others."""
        branches = operation.params["branches"]
        if isinstance(index, _PlatformIndex):
            return branches[index.of_all_others()]
        return None

    def _scan(self, operation: Any, inputs: list[_Value], scope: str) -> list[_Value]:
        """Unrolled: the parameters of one step are those of one layer of a stack."""
        params = operation.params
        # By ranks, as the names of parameters that say so differ between versions of JAX.
        step = params["jaxpr"].jaxpr
        carried = sum(_same_rank(operation.outvars, step.outvars))
        fixed = sum(_same_rank(operation.invars, step.invars)) - carried
        consts, carry = inputs[:fixed], inputs[fixed : fixed + carried]
        stacked = inputs[fixed + carried :]
        if any(isinstance(x, _Result | _Refused) for x in stacked):
            return [_Refused(str(self.refusal("a scan along an axis of its input", "")))] * len(
                operation.outvars
            )
        order = range(params["length"])
        rows: list[list[_Value]] = []
        for index in reversed(order) if params["reverse"] else order:
            here = [x[index] for x in stacked]
            results = self._call(params["jaxpr"], [*consts, *carry, *here], scope)
            carry = results[:carried]
            rows.append(results[carried:])
        self.scope = scope
        if params["reverse"]:
            rows.reverse()
        return [*carry, *(self._stacked(column) for column in zip(*rows, strict=True))]

    def _stacked(self, column: Sequence[_Value]) -> _Value:
        if any(isinstance(x, _Result | _Refused) for x in column):
            return _Refused(str(self.refusal("a scan that gives a result of each step", "")))
        return jnp.stack(column)

    def refusal(self, what: str, remedy: str = "") -> CannotFreezeError:
        """The error for a part that can't be expressed."""
        where = f"layer {self.layer!r}" if self.layer else "the network itself"
        return CannotFreezeError(
            f"{where} can't be frozen: {what} has no form in the graph.{' ' * bool(remedy)}{remedy}"
        )

    def emit(self, op: str, like: _Result, *inputs: _Value, **attributes: Any) -> _Result:
        """Writes an operation down; its result has shape and dtype of `like`."""
        refs = tuple(self._ref(x) for x in inputs)
        self.nodes.append(_RawNode(op, refs, attributes, self.layer))
        return like._replace(number=len(self.nodes))

    def _ref(self, value: _Value) -> Any:
        if isinstance(value, _Result):
            return value.number
        self.constants.append(jnp.asarray(value))
        return _Constant(len(self.constants) - 1)

    def finish(self, results: Sequence[_Value]) -> None:
        """Notes which result is the network's."""
        self.scope = ""
        if len(results) != 1:
            raise self.refusal(
                f"a result of {len(results)} arrays", "Freeze a module that returns one of them."
            )
        (result,) = results
        if isinstance(result, _Refused):
            raise CannotFreezeError(result.why)
        if not isinstance(result, _Result):
            raise self.refusal("a result that does not depend on the input")
        if not jnp.issubdtype(result.dtype, jnp.floating):
            raise self.refusal(
                f"a result of {result.dtype}", "Freeze a module that returns the logits."
            )
        self.output = result.number


def _same_rank(outer: Sequence[Any], inner: Sequence[Any]) -> list[bool]:
    """For each variable, whether a step takes or gives all of it, and not one row."""
    return [len(a.aval.shape) == len(b.aval.shape) for a, b in zip(outer, inner, strict=True)]


class _PlatformIndex(NamedTuple):
    platforms: Any

    def of_all_others(self) -> int:
        return next(i for i, names in enumerate(self.platforms) if names is None)


# Programs within the program that are read as a part of it, and the parameter that holds them.
_CALLS = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "closed_call": "call_jaxpr",
    "core_call": "call_jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
    "checkpoint": "jaxpr",
    "remat2": "jaxpr",
}

_REMEDIES = {
    "sign": "jnp.sign gives 0 at 0, and a bit can't: use ovsw.nn.sign.",
    "while": "The number of steps must be known: use a scan.",
    "cond": "A branch that depends on values can't be taken ahead of time: use jnp.where.",
    "argmax": "Freeze the network up to its logits.",
    "cumsum": "Write it as a product with a constant matrix.",
    "gather": "Take slices instead of single elements by their index.",
}


# --- operations


def _results_like(operation: Any) -> _Result:
    aval = operation.outvars[0].aval
    return _Result(-1, tuple(aval.shape), aval.dtype)


def _elementwise(op: str) -> _Handler:
    def handler(reader: _Reader, operation: Any, inputs: Sequence[_Value]) -> _Result:
        _check_floats(reader, operation)
        return reader.emit(op, _results_like(operation), *inputs)

    return handler


def _check_floats(reader: _Reader, operation: Any) -> None:
    """Integers wrap, and division of them truncates: only floats are computed with."""
    for atom in (*operation.invars, *operation.outvars):
        dtype = atom.aval.dtype
        if not jnp.issubdtype(dtype, jnp.floating):
            raise reader.refusal(
                f"the operation {operation.primitive.name} on {dtype}",
                "Convert the numbers to float32 first.",
            )


def _compare(op: str, *, swap: bool = False, negate: bool = False) -> _Handler:
    def handler(reader: _Reader, operation: Any, inputs: Sequence[_Value]) -> _Result:
        if jnp.issubdtype(operation.invars[0].aval.dtype, jnp.bool_):
            raise reader.refusal(f"the operation {operation.primitive.name} on bool")
        like = _results_like(operation)
        result = reader.emit(op, like, *(reversed(inputs) if swap else inputs))
        return reader.emit("not", like, result) if negate else result

    return handler


def _with_number(op: str, number: float, *, first: bool = False) -> _Handler:
    def handler(reader: _Reader, operation: Any, inputs: Sequence[_Value]) -> _Result:
        _check_floats(reader, operation)
        both = (np.float32(number), inputs[0]) if first else (inputs[0], np.float32(number))
        return reader.emit(op, _results_like(operation), *both)

    return handler


def _composed(*steps: tuple[str, float | None, bool]) -> _Handler:
    """Several elementwise operations: name, a number that each takes too, whether it is first."""

    def handler(reader: _Reader, operation: Any, inputs: Sequence[_Value]) -> _Result:
        _check_floats(reader, operation)
        like, x = _results_like(operation), inputs[0]
        for op, number, first in steps:
            operands = (x,) if number is None else (x, np.float32(number))
            x = reader.emit(op, like, *(reversed(operands) if first else operands))
        return x

    return handler


def _square(reader: _Reader, operation: Any, inputs: Sequence[_Value]) -> _Result:
    _check_floats(reader, operation)
    return reader.emit("mul", _results_like(operation), inputs[0], inputs[0])


def _integer_pow(reader: _Reader, operation: Any, inputs: Sequence[_Value]) -> _Result:
    _check_floats(reader, operation)
    (x,), y, like = inputs, operation.params["y"], _results_like(operation)
    if not 1 <= abs(y) <= 4:
        return reader.emit("pow", like, x, np.float32(y))
    result = x
    for _ in range(abs(y) - 1):
        result = reader.emit("mul", like, result, x)
    return reader.emit("div", like, np.float32(1), result) if y < 0 else result


def _clamp(reader: _Reader, operation: Any, inputs: Sequence[_Value]) -> _Result:
    _check_floats(reader, operation)
    low, x, high = inputs
    like = _results_like(operation)
    return reader.emit("min", like, reader.emit("max", like, x, low), high)


def _select(reader: _Reader, operation: Any, inputs: Sequence[_Value]) -> _Result:
    condition, *cases = inputs
    if len(cases) != 2 or not isinstance(condition, _Result):
        raise reader.refusal("a choice by a constant condition", "Compute it outside the network.")
    if jnp.issubdtype(operation.outvars[0].aval.dtype, jnp.bool_):
        raise reader.refusal("a choice between bools")
    return reader.emit("select", _results_like(operation), condition, cases[1], cases[0])


def _convert(reader: _Reader, operation: Any, inputs: Sequence[_Value]) -> _Result:
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


def _same(reader: _Reader, operation: Any, inputs: Sequence[_Value]) -> list[_Value]:
    return list(inputs)


# --- operations that move elements; axis 0 is the batch, which no sample sees


def _keep_batch(reader: _Reader, holds: bool, what: str) -> None:
    if not holds:
        raise reader.refusal(
            f"{what} across the batch axis", "Each sample must be computed by itself."
        )


def _reshaped(reader: _Reader, operation: Any, inputs: Sequence[_Value]) -> _Result:
    like = _results_like(operation)
    return _to_shape(reader, inputs[0], like)


def _to_shape(reader: _Reader, x: _Result, like: _Result) -> _Result:
    batch = like.shape[:1] == x.shape[:1]
    _keep_batch(reader, batch, f"a reshape from {x.shape} to {like.shape}")
    return reader.emit("reshape", like, x, shape=like.shape[1:])


def _broadcast(reader: _Reader, operation: Any, inputs: Sequence[_Value]) -> _Result:
    (x,), like = inputs, _results_like(operation)
    places = operation.params["broadcast_dimensions"]
    _keep_batch(reader, places[:1] == (0,) and like.shape[0] == x.shape[0], "a broadcast")
    shape = [1] * len(like.shape)
    for place, size in zip(places, x.shape, strict=True):
        shape[place] = size
    x = _to_shape(reader, x, like._replace(shape=tuple(shape)))
    return reader.emit("broadcast", like, x, shape=like.shape[1:])


def _transpose(reader: _Reader, operation: Any, inputs: Sequence[_Value]) -> _Result:
    return _moved(reader, inputs[0], operation.params["permutation"])


def _moved(reader: _Reader, x: _Result, order: Sequence[int]) -> _Result:
    _keep_batch(reader, order[0] == 0, f"a transpose {tuple(order)}")
    like = x._replace(shape=tuple(x.shape[a] for a in order))
    return reader.emit("transpose", like, x, axes=tuple(a - 1 for a in order[1:]))


def _concatenate(reader: _Reader, operation: Any, inputs: Sequence[_Value]) -> _Result:
    axis = operation.params["dimension"]
    _keep_batch(reader, axis != 0, "a concatenation")
    if not all(isinstance(x, _Result) for x in inputs):
        raise reader.refusal("a concatenation with a constant", "Use jnp.pad for a border.")
    return reader.emit("concat", _results_like(operation), *inputs, axis=axis - 1)


def _pad(reader: _Reader, operation: Any, inputs: Sequence[_Value]) -> _Result:
    x, value = inputs
    config = operation.params["padding_config"]
    _keep_batch(reader, tuple(config[0]) == (0, 0, 0), "padding")
    if any(inner for _, _, inner in config):
        raise reader.refusal("padding between elements")
    if not isinstance(x, _Result) or isinstance(value, _Result):
        raise reader.refusal("padding with a result")
    sizes = zip(config, x.shape, strict=True)
    starts, limits = zip(*((max(-a, 0), n - max(-b, 0)) for (a, b, _), n in sizes), strict=True)
    if any(starts) or limits != x.shape:
        x = _sliced(reader, x, starts, limits, (1,) * len(starts))
    pads = tuple((max(int(low), 0), max(int(high), 0)) for low, high, _ in config[1:])
    # The value is known once the constants are: it is an attribute of the typed node.
    return reader.emit("pad", _results_like(operation), x, value, padding=pads)


def _slice(reader: _Reader, operation: Any, inputs: Sequence[_Value]) -> _Result:
    params = operation.params
    starts, limits = params["start_indices"], params["limit_indices"]
    return _sliced(reader, inputs[0], starts, limits, params["strides"] or (1,) * len(starts))


def _sliced(
    reader: _Reader, x: _Result, starts: Any, limits: Any, strides: Sequence[int]
) -> _Result:
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


def _dynamic_slice(reader: _Reader, operation: Any, inputs: Sequence[_Value]) -> _Result:
    x, *starts = inputs
    sizes = operation.params["slice_sizes"]
    numbers = [s for s in starts if not isinstance(s, _Result | jax.core.Tracer)]
    if len(numbers) != len(starts) or not isinstance(x, _Result):
        raise reader.refusal("a slice that starts where a computation says")
    spans = zip(numbers, sizes, x.shape, strict=True)
    low = [min(max(int(s), 0), n - size) for s, size, n in spans]
    high = [a + size for a, size in zip(low, sizes, strict=True)]
    return _sliced(reader, x, low, high, (1,) * len(low))


def _split(reader: _Reader, operation: Any, inputs: Sequence[_Value]) -> list[_Result]:
    (x,), axis, start, parts = inputs, operation.params["axis"], 0, []
    for size in operation.params["sizes"]:
        low, high = [0] * len(x.shape), list(x.shape)
        low[axis], high[axis] = start, start + size
        parts.append(_sliced(reader, x, low, high, (1,) * len(low)))
        start += size
    return parts


def _reverse(reader: _Reader, operation: Any, inputs: Sequence[_Value]) -> _Result:
    axes = operation.params["dimensions"]
    _keep_batch(reader, 0 not in axes, "a reversal")
    axes = tuple(a - 1 for a in axes)
    return reader.emit("reverse", _results_like(operation), inputs[0], axes=axes)


# --- operations of several elements


def _reduce(op: str) -> _Handler:
    def handler(reader: _Reader, operation: Any, inputs: Sequence[_Value]) -> _Result:
        _check_floats(reader, operation)
        (x,), axes, like = inputs, operation.params["axes"], _results_like(operation)
        _keep_batch(reader, 0 not in axes, f"the operation {operation.primitive.name}")
        result = reader.emit(op, like, x, axes=tuple(a - 1 for a in axes))
        count = math.prod(x.shape[a] for a in axes)
        return reader.emit("mul", like, result, np.float32(count)) if op == "mean" else result

    return handler


def _pool(op: str) -> _Handler:
    def handler(reader: _Reader, operation: Any, inputs: Sequence[_Value]) -> _Result:
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


def _dot(reader: _Reader, operation: Any, inputs: Sequence[_Value]) -> _Result:
    _check_floats(reader, operation)
    x, weights = inputs
    (of_x, of_weights), batch = operation.params["dimension_numbers"]
    if isinstance(x, _Result) and isinstance(weights, _Result):
        raise reader.refusal("a product of two results, as in attention")
    if any(batch):
        raise reader.refusal("a product with a batch of constant matrices")
    swapped = not isinstance(x, _Result)
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


def _convolution(reader: _Reader, operation: Any, inputs: Sequence[_Value]) -> _Result:
    _check_floats(reader, operation)
    (x, kernel), params = inputs, operation.params
    if not isinstance(x, _Result) or isinstance(kernel, _Result):
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


_HANDLERS: dict[str, _Handler] = {
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


# --- the graph, once the constants are known


def _typed(reader: _Reader, values: Sequence[np.ndarray], input_type: Type) -> Graph:
    builder = Builder(input_type)
    numbers = {0: 0}
    needed = _needed(reader)
    for number, node in enumerate(reader.nodes, start=1):
        if number not in needed:
            continue
        attributes = dict(node.attributes)
        inputs = list(node.inputs)
        if node.op == "pad":
            attributes["value"] = float(values[inputs.pop().number])
        refs: list[Ref] = []
        for place, ref in enumerate(inputs):
            if not isinstance(ref, _Constant):
                refs.append(numbers[ref])
            elif node.op in ("conv", "dense") and place == 1:
                refs.append(builder.tensor(np.asarray(values[ref.number], np.float32)))
            else:
                constant = _of_each_sample(values[ref.number], node)
                refs.append(builder.tensor(constant))
        try:
            numbers[number] = builder.add(node.op, *refs, layer=node.layer, **attributes)
        except ValueError as error:
            where = f"layer {node.layer!r}" if node.layer else "the network itself"
            raise CannotFreezeError(f"{where} can't be frozen: {error}.") from error
    return builder.graph(numbers[reader.output])


def _needed(reader: _Reader) -> set[int]:
    needed = {reader.output}
    for number in range(len(reader.nodes), 0, -1):
        if number in needed:
            inputs = reader.nodes[number - 1].inputs
            needed.update(ref for ref in inputs if not isinstance(ref, _Constant))
    return needed


def _of_each_sample(array: np.ndarray, node: _RawNode) -> np.ndarray:
    """A constant without its batch axis, and without axes along which it is the same."""
    array = np.asarray(array, np.float32)
    for axis in range(array.ndim):
        first = array[(slice(None),) * axis + (slice(0, 1),)]
        if np.array_equal(np.broadcast_to(first, array.shape), array, equal_nan=True):
            array = first
    if array.ndim and array.shape[0] != 1:
        where = f"layer {node.layer!r}" if node.layer else "the network itself"
        raise CannotFreezeError(
            f"{where} can't be frozen: the operation {node.op} takes a constant that differs along "
            "the batch axis. Each sample must be computed by itself."
        )
    shape = array.shape[1:]
    while shape and shape[0] == 1:
        shape = shape[1:]
    return array.reshape(shape)
