"""Integer thresholds: the sign of a batch norm of a sum of signs is a comparison of that sum.

Between a sum of K signs and the next sign stand functions of one number, different for each
channel: factor, bias, batch norm, activation. The sum is an integer from -K to K, so all that they
can give is computed here, in float32 and in the order of the network. Where the sign changes once,
at most, the place of the change says everything: no rounding moves it, and a scale that is negative
or zero is no special case.
"""

import math
from collections.abc import Callable

import numpy as np

from ovsw_jax.deploy.builder import Builder, attributes_of, rewrite, uses
from ovsw_jax.deploy.graph import Graph, Node, Ref, Signs

_Function = Callable[[np.ndarray], np.ndarray]


def find_thresholds(graph: Graph) -> Graph:
    """A `threshold` for each sign behind sums of signs whose values nothing else uses."""
    counts = uses(graph.nodes, graph.output)

    def rule(builder: Builder, node: Node, moved: Callable[[Ref], Ref]) -> Ref | None:
        if node.op != "sign":
            return None
        found = _functions_of_sums(graph, node.inputs[0], counts)
        if found is None:
            return None
        sums, functions = found
        table = _table(functions, _greatest(graph, sums), graph.type_of(sums).shape[-1])
        if (np.diff(table, axis=0).sum(axis=0) > 1).any():
            return None
        thresholds, directions = _changes(table)
        inputs = [moved(sums), builder.tensor(thresholds)]
        if (directions < 0).any():
            inputs.append(builder.tensor(Signs.of(directions)))
        return builder.add("threshold", *inputs, layer=node.layer)

    return rewrite(graph, rule)


def _functions_of_sums(
    graph: Graph, ref: Ref, counts: dict[int, int]
) -> tuple[int, list[_Function]] | None:
    """The integer that a result is a function of, and the functions in their order."""
    functions: list[_Function] = []
    number = int(ref)
    while number and graph.type_of(number).kind != "int32":
        node = graph.nodes[number - 1]
        values = [r for r in node.inputs if isinstance(r, int)]
        function = _function(graph, node) if len(values) == 1 and counts[number] == 1 else None
        if function is None:
            return None
        functions.insert(0, function)
        (number,) = values
    found = number and functions and graph.type_of(number).shape
    return (number, functions) if found else None


def _function(graph: Graph, node: Node) -> _Function | None:
    """What a node does to (integers, channels) of numbers, if it treats each by itself."""
    channels = math.prod(node.type.shape[-1:])
    operands = []
    for ref in node.inputs:
        constant = _constant(graph, ref)
        if constant is not None and constant.shape not in ((), (channels,)):
            return None
        operands.append(constant)
    if node.op == "clip":
        limits = attributes_of(node)
        low = -math.inf if limits["low"] is None else limits["low"]
        high = math.inf if limits["high"] is None else limits["high"]
        return lambda x: np.minimum(np.maximum(x, np.float32(low)), np.float32(high))
    function = _ARITHMETIC.get(node.op)
    if function is None or node.type.shape != graph.type_of(_value(node)).shape:
        return None
    return lambda x: function(*(x if c is None else c for c in operands))


def _value(node: Node) -> int:
    return next(r for r in node.inputs if isinstance(r, int))


def _constant(graph: Graph, ref: Ref) -> np.ndarray | None:
    if isinstance(ref, float):
        return np.asarray(ref, np.float32)
    tensor = graph.tensors[ref] if isinstance(ref, str) else None
    return tensor if isinstance(tensor, np.ndarray) else None


_ARITHMETIC: dict[str, Callable[..., np.ndarray]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "max": np.maximum,
    "min": np.minimum,
    "abs": np.abs,
    "tanh": np.tanh,
    "prelu": lambda x, slope: np.where(x > 0, x, slope * x),
}


def _greatest(graph: Graph, number: int) -> int:
    """Of how many signs a sum is, at most."""
    node = graph.nodes[number - 1]
    if node.op in ("conv", "dense"):
        return math.prod(graph.type_of(node.inputs[1]).shape[1:])
    return max(_greatest(graph, ref) for ref in node.inputs if isinstance(ref, int))


def _table(functions: list[_Function], greatest: int, channels: int) -> np.ndarray:
    """Where the sign of each integer from -greatest to greatest is +1: (integers, channels)."""
    integers = np.arange(-greatest, greatest + 1, dtype=np.float32)[:, None]
    x = np.broadcast_to(integers, (len(integers), channels))
    with np.errstate(all="ignore"):
        for function in functions:
            x = function(x)
    return x >= 0


def _changes(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each channel, the first integer with the sign of the last, and what sign that is."""
    greatest = len(table) // 2
    directions = np.where(table[-1], 1, -1).astype(np.int8)
    # Where all signs are the same the first integer is -greatest, the least that there is.
    thresholds = np.argmax(table == table[-1], axis=0) - greatest
    return thresholds.astype(np.int32), directions
