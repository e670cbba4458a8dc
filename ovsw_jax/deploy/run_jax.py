"""Evaluates a graph with JAX: each operation in the form that XLA does best."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ovsw_jax.deploy.builder import attributes_of
from ovsw_jax.deploy.graph import Graph, Node, Ref, Signs
from ovsw_jax.nn._kernels.convolution import Window, multiply
from ovsw_jax.nn._kernels.popcount import can_count, count_words
from ovsw_jax.nn._kernels.taps import Taps
from ovsw_jax.nn._kernels.words import WORD_BITS, bits_of_word, pack_positive

# Signs are bools, True for +1; sums of signs are integers. All else is float32.
_Value = Any


def run(graph: Graph, x: jax.Array) -> jax.Array:
    """The output of a graph.

    Args:
      graph: the operations.
      x: (batch, *input) float32.

    Returns:
      (batch, *output) float32.
    """
    return _float(_results(graph, x)[graph.output])


def greatest(graph: Graph, x: jax.Array) -> jax.Array:
    """The greatest magnitude in each result, the input first: (1 + nodes,) float32."""
    return jnp.stack([jnp.abs(_float(value)).max() for value in _results(graph, x)])


def _results(graph: Graph, x: jax.Array) -> list[_Value]:
    values = [x]
    for node in graph.nodes:
        values.append(_OPERATIONS[node.op](_Context(graph, node, values)))
    return values


class _Context:
    """A node and what it takes."""

    def __init__(self, graph: Graph, node: Node, values: list[_Value]):
        self.graph, self.node, self._values = graph, node, values
        self.attributes = attributes_of(node)

    def value(self, place: int = 0) -> _Value:
        """The result that is an input, as it is."""
        return self._values[int(self.node.inputs[place])]

    def tensor(self, place: int) -> Any:
        """The tensor that is an input."""
        return self.graph.tensors[str(self.node.inputs[place])]

    def number(self, place: int) -> jax.Array:
        """An input as float32, of the rank of the result."""
        ref: Ref = self.node.inputs[place]
        if isinstance(ref, int):
            return _float(self._values[ref])
        array = np.asarray(ref if isinstance(ref, float) else self.graph.tensors[ref], np.float32)
        rank = len(self.node.type.shape) + 1
        return jnp.asarray(array.reshape((1,) * (rank - array.ndim) + array.shape))


def _float(x: _Value) -> jax.Array:
    if x.dtype == bool:
        return jnp.where(x, jnp.float32(1), jnp.float32(-1))
    return x.astype(jnp.float32)


# --- products


def _conv(c: _Context) -> _Value:
    weights, a = c.tensor(1), c.attributes
    _, *size, _ = weights.shape
    axes = len(size)
    window = Window(
        tuple(size),
        a["strides"] or (1,) * axes,
        a["padding"] or ((0, 0),) * axes,
        a["dilation"] or (1,) * axes,
        a["groups"],
    )
    return _product(c.value(), weights, window)


def _dense(c: _Context) -> _Value:
    """A 1x1 convolution, all rows of which are one spatial axis."""
    x, weights = c.value(), c.tensor(1)
    if not (isinstance(weights, Signs) and x.dtype == bool):
        kernel = _kernel(weights)
        return jnp.dot(_float(x), kernel)
    window = Window((1,), (1,), ((0, 0),), (1,), 1)
    signs = Signs((weights.shape[0], 1, weights.shape[1]), weights.bits)
    y = _product(x.reshape(x.shape[0], -1, x.shape[-1]), signs, window)
    return y.reshape(*x.shape[:-1], weights.shape[0])


def _product(x: _Value, weights: Any, window: Window) -> _Value:
    if not (isinstance(weights, Signs) and x.dtype == bool):
        return multiply(_float(x), _kernel(weights), window, jnp.float32)
    padding: Any = window.padding
    taps = Taps(window.kernel_size, window.strides, window.kernel_dilation, padding, x.shape[1:-1])
    multiplied = partial(_multiply_signs, weights, window)
    if window.feature_group_count > 1 or not can_count(x.shape[0], x.shape[-1], taps):
        return multiplied(x)
    counted = partial(_count, weights, taps)
    return lax.platform_dependent(x, cpu=counted, default=multiplied)


def _count(weights: Signs, taps: Taps, x: jax.Array) -> jax.Array:
    words = _words(weights.positive())
    channels = weights.shape[-1]
    return count_words(pack_positive(x), jnp.asarray(words), channels, taps).astype(jnp.int32)


def _multiply_signs(weights: Signs, window: Window, x: jax.Array) -> jax.Array:
    return multiply(_float(x), _kernel(weights), window, jnp.float32).astype(jnp.int32)


def _kernel(weights: Any) -> jax.Array:
    """Weights as JAX takes them, filters last; signs are kept as bytes in the program."""
    if isinstance(weights, Signs):
        return _float(jnp.asarray(np.moveaxis(weights.positive(), 0, -1)))
    return jnp.asarray(np.moveaxis(weights, 0, -1) if weights.ndim > 1 else weights)


def _words(positive: np.ndarray) -> np.ndarray:
    """Weights (filters, *kernel_size, channels) as words (*kernel_size, filters, words)."""
    positive = np.moveaxis(positive, 0, -2)
    channels = positive.shape[-1]
    bits = bits_of_word(channels)
    grouped = np.zeros((*positive.shape[:-1], -(-channels // bits), WORD_BITS), bool)
    padded = np.zeros((*positive.shape[:-1], grouped.shape[-2] * bits), bool)
    padded[..., :channels] = positive
    grouped[..., :bits] = padded.reshape(*grouped.shape[:-1], bits)
    packed = np.packbits(grouped, axis=-1, bitorder="little")
    words: np.ndarray = packed.view("<u4")[..., 0].astype(np.uint32)
    return words


# --- signs


def _sign(c: _Context) -> _Value:
    x = c.value()
    return x if x.dtype == bool else x >= 0


def _threshold(c: _Context) -> _Value:
    x = c.value()
    shape = (1,) * (x.ndim - 1) + (-1,)
    above = x >= jnp.asarray(c.tensor(1).reshape(shape))
    if len(c.node.inputs) == 2:
        return above
    return above == jnp.asarray(c.tensor(2).positive().reshape(shape))


# --- numbers


def _affine(c: _Context) -> _Value:
    return c.number(0) * c.number(1) + c.number(2)


def _prelu(c: _Context) -> _Value:
    x = c.number(0)
    return jnp.where(x > 0, x, c.number(1) * x)


def _clip(c: _Context) -> _Value:
    x, low, high = c.number(0), c.attributes["low"], c.attributes["high"]
    x = x if low is None else jnp.maximum(x, np.float32(low))
    return x if high is None else jnp.minimum(x, np.float32(high))


def _elementwise(function: Callable[..., jax.Array], count: int) -> Callable[[_Context], _Value]:
    return lambda c: function(*(c.number(place) for place in range(count)))


def _select(c: _Context) -> _Value:
    return jnp.where(c.value(), c.number(1), c.number(2))


# --- several elements


def _max_pool(c: _Context) -> _Value:
    x = c.value()
    if x.dtype == bool:
        return lax.reduce_window(x, False, lax.bitwise_or, **_windows(c))
    least = -jnp.inf if jnp.issubdtype(x.dtype, jnp.floating) else jnp.iinfo(x.dtype).min
    return lax.reduce_window(x, np.asarray(least, x.dtype), lax.max, **_windows(c))


def _avg_pool(c: _Context) -> _Value:
    total = lax.reduce_window(c.number(0), np.float32(0), lax.add, **_windows(c))
    return total / np.float32(np.prod(c.attributes["window"]))


def _windows(c: _Context) -> Mapping[str, Any]:
    window, axes = c.attributes["window"], len(c.attributes["window"])
    return {
        "window_dimensions": (1, *window, 1),
        "window_strides": (1, *(c.attributes["strides"] or (1,) * axes), 1),
        "padding": ((0, 0), *(c.attributes["padding"] or ((0, 0),) * axes), (0, 0)),
    }


def _mean(c: _Context) -> _Value:
    return jnp.mean(c.number(0), _axes(c))


def _reduce(function: Callable[..., jax.Array]) -> Callable[[_Context], _Value]:
    return lambda c: function(c.value(), _axes(c))


def _axes(c: _Context) -> tuple[int, ...]:
    return tuple(a + 1 for a in c.attributes["axes"])


# --- places


def _pad(c: _Context) -> _Value:
    x, value = c.value(), c.attributes["value"]
    pads = ((0, 0), *c.attributes["padding"])
    if c.node.type.kind == "signs":
        return jnp.pad(x, pads, constant_values=value > 0)
    return jnp.pad(_float(x), pads, constant_values=np.float32(value))


def _slice(c: _Context) -> _Value:
    a = c.attributes
    start, stop, step = a["start"], a["stop"], a["step"] or (1,) * len(a["start"])
    places = (slice(b, e, s) for b, e, s in zip(start, stop, step, strict=True))
    return c.value()[(slice(None), *places)]


def _shaped(c: _Context) -> tuple[int, ...]:
    return (c.value().shape[0], *c.attributes["shape"])


def _concat(c: _Context) -> _Value:
    values = [c.value(place) for place in range(len(c.node.inputs))]
    if c.node.type.kind == "float32":
        values = [_float(v) for v in values]
    return jnp.concatenate(values, c.attributes["axis"] + 1)


_Function = Callable[..., jax.Array]
_OF_ONE: dict[str, _Function] = {
    "abs": jnp.abs,
    "exp": jnp.exp,
    "log": jnp.log,
    "tanh": jnp.tanh,
    "sigmoid": jax.nn.sigmoid,
    "erf": lax.erf,
    "sqrt": jnp.sqrt,
}
_OF_TWO: dict[str, _Function] = {
    "add": jnp.add,
    "sub": jnp.subtract,
    "mul": jnp.multiply,
    "div": jnp.divide,
    "max": jnp.maximum,
    "min": jnp.minimum,
    "pow": jnp.power,
    "equal": jnp.equal,
    "greater": jnp.greater,
    "greater_equal": jnp.greater_equal,
}
_OPERATIONS: dict[str, Callable[[_Context], _Value]] = {
    "conv": _conv,
    "dense": _dense,
    "sign": _sign,
    "threshold": _threshold,
    "affine": _affine,
    "prelu": _prelu,
    "clip": _clip,
    **{name: _elementwise(function, 1) for name, function in _OF_ONE.items()},
    **{name: _elementwise(function, 2) for name, function in _OF_TWO.items()},
    "not": lambda c: ~c.value(),
    "select": _select,
    "max_pool": _max_pool,
    "avg_pool": _avg_pool,
    "mean": _mean,
    "reduce_max": _reduce(jnp.max),
    "reduce_min": _reduce(jnp.min),
    "pad": _pad,
    "reshape": lambda c: c.value().reshape(_shaped(c)),
    "broadcast": lambda c: jnp.broadcast_to(c.value(), _shaped(c)),
    "transpose": lambda c: c.value().transpose((0, *(a + 1 for a in c.attributes["axes"]))),
    "slice": _slice,
    "reverse": lambda c: jnp.flip(c.value(), _axes(c)),
    "concat": _concat,
}
