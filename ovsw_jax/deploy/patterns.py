"""Finds operations of the graph in the several ones that JAX makes of them."""

from collections.abc import Callable

import numpy as np

from ovsw_jax.deploy.builder import Builder, attributes_of, rewrite
from ovsw_jax.deploy.graph import Graph, Node, Ref


def find_patterns(graph: Graph) -> Graph:
    """Signs, PReLU, limits, padding that a window does itself; no moves that move nothing."""
    return rewrite(graph, _simplest)


def _simplest(builder: Builder, node: Node, moved: Callable[[Ref], Ref]) -> Ref | None:
    inputs = tuple(map(moved, node.inputs))
    finder = _FINDERS.get(node.op)
    return None if finder is None else finder(builder, node, inputs)


def _choice(builder: Builder, node: Node, inputs: tuple[Ref, ...]) -> Ref | None:
    condition, true, false = inputs
    test = builder.made_by(condition, "greater", "greater_equal")
    if test is None:
        return None
    a, b = test.inputs
    above, below = (true, false) == (1.0, -1.0), (true, false) == (-1.0, 1.0)
    if above and test.op == "greater_equal" and isinstance(a, int):  # a >= b
        return _sign_of_difference(builder, node, a, b)
    if below and test.op == "greater" and isinstance(b, int):  # b < a
        return _sign_of_difference(builder, node, b, a)
    if b == 0.0 and isinstance(b, float) and true == a and isinstance(a, int):
        slope = _slope(builder, false, a)
        return None if slope is None else builder.add("prelu", a, slope, layer=node.layer)
    return None


def _sign_of_difference(builder: Builder, node: Node, x: Ref, y: Ref) -> Ref:
    """X >= y where x - y >= 0: exactly, as the difference is 0 only of equal numbers."""
    if not (isinstance(y, float) and y == 0):
        x = builder.add("sub", x, y, layer=node.layer)
    return builder.add("sign", x, layer=node.layer)


def _slope(builder: Builder, ref: Ref, x: int) -> Ref | None:
    product = builder.made_by(ref, "mul")
    if product is None or x not in product.inputs:
        return None
    (slope,) = [r for r in product.inputs if r != x] or [x]
    shape = builder.type_of(x).shape
    known = builder.per_channel(slope, shape[-1] if shape else 1)
    return None if known is None else slope


def _limit(builder: Builder, node: Node, inputs: tuple[Ref, ...]) -> Ref | None:
    x, limit = inputs if isinstance(inputs[1], float) else reversed(inputs)
    if not isinstance(limit, float) or not np.isfinite(limit):
        return None
    low, high = (limit, None) if node.op == "max" else (None, limit)
    inner = builder.made_by(x, "clip")
    if inner is not None:
        before = attributes_of(inner)
        if node.op == "max" and (before["high"] is None or limit <= before["high"]):
            low, high = _tightest(max, before["low"], limit), before["high"]
            (x,) = inner.inputs
        elif node.op == "min" and (before["low"] is None or limit >= before["low"]):
            low, high = before["low"], _tightest(min, before["high"], limit)
            (x,) = inner.inputs
    given = {name: v for name, v in (("low", low), ("high", high)) if v is not None}
    return builder.add("clip", x, layer=node.layer, **given)


def _tightest(choose: Callable[[float, float], float], before: float | None, limit: float) -> float:
    return limit if before is None else choose(before, limit)


def _with_padding(builder: Builder, node: Node, inputs: tuple[Ref, ...]) -> Ref | None:
    """A window that adds zeros itself, instead of an array of them in front of it."""
    pad = builder.made_by(inputs[0], "pad")
    if pad is None:
        return None
    added, attributes = attributes_of(pad), attributes_of(node)
    *spatial, channels = added["padding"]
    if added["value"] != 0 or tuple(channels) != (0, 0):
        return None
    own = attributes["padding"] or ((0, 0),) * len(spatial)
    both = tuple((a + c, b + d) for (a, b), (c, d) in zip(own, spatial, strict=True))
    if node.op == "avg_pool" and any(
        max(p) >= k for p, k in zip(both, attributes["window"], strict=True)
    ):
        return None
    attributes["padding"] = both
    return builder.add(node.op, pad.inputs[0], *inputs[1:], layer=node.layer, **attributes)


def _reshape(builder: Builder, node: Node, inputs: tuple[Ref, ...]) -> Ref | None:
    (x,) = inputs
    inner = builder.made_by(x, "reshape")
    if inner is not None:
        (x,) = inner.inputs
    shape = node.attributes["shape"]
    if builder.type_of(x).shape == shape:
        return x
    return builder.add("reshape", x, layer=node.layer, shape=shape)


def _transpose(builder: Builder, node: Node, inputs: tuple[Ref, ...]) -> Ref | None:
    (x,), axes = inputs, node.attributes["axes"]
    inner = builder.made_by(x, "transpose")
    if inner is not None:
        (x,) = inner.inputs
        axes = tuple(inner.attributes["axes"][a] for a in axes)
    if axes == tuple(range(len(axes))):
        return x
    return builder.add("transpose", x, layer=node.layer, axes=axes)


def _unless_same_shape(builder: Builder, node: Node, inputs: tuple[Ref, ...]) -> Ref | None:
    return inputs[0] if builder.type_of(inputs[0]).shape == node.type.shape else None


_FINDERS = {
    "select": _choice,
    "max": _limit,
    "min": _limit,
    "conv": _with_padding,
    "avg_pool": _with_padding,
    "reshape": _reshape,
    "transpose": _transpose,
    "broadcast": _unless_same_shape,
    "slice": _unless_same_shape,
    "pad": _unless_same_shape,
}
