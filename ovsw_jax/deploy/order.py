"""Puts operations in the order in which they take signs, or sums of signs, and not real numbers.

A maximum passes through every function that does not decrease, and to the last bit: rounding does
not decrease either.
"""

from collections.abc import Callable

from ovsw_jax.deploy.builder import Builder, rewrite, uses
from ovsw_jax.deploy.graph import Graph, Node, Ref


def order_signs(graph: Graph) -> Graph:
    """Signs before pools and moves; pools before factors and biases of sums of signs."""
    return _behind_signs(_before_factors(graph))


def _before_factors(graph: Graph) -> Graph:
    """The factor of a maximum of sums instead of a maximum of sums with a factor."""

    def rule(builder: Builder, node: Node, moved: Callable[[Ref], Ref]) -> Ref | None:
        if node.op != "max_pool":
            return None
        steps: list[Node] = []
        x = moved(node.inputs[0])
        while (step := builder.made_by(x, "mul", "add", "sub")) and _increases(builder, step):
            steps.insert(0, step)
            x = step.inputs[0]
        if not steps or builder.type_of(x).kind != "int32":
            return None
        x = builder.add("max_pool", x, **node.attributes)
        for step in steps:
            x = builder.add(step.op, x, step.inputs[1], layer=step.layer)
        return x

    return rewrite(graph, rule)


def _increases(builder: Builder, node: Node) -> bool:
    """Whether a node is a function of its first input that nowhere decreases."""
    x, other = node.inputs
    shape = builder.type_of(node.inputs[0]).shape
    constant = builder.per_channel(other, shape[-1]) if isinstance(x, int) else None
    return constant is not None and (node.op != "mul" or bool((constant >= 0).all()))


def _behind_signs(graph: Graph) -> Graph:
    """Moves of signs instead of the sign of what was moved, and a maximum of signs likewise."""
    counts = uses(graph.nodes, graph.output)

    def rule(builder: Builder, node: Node, moved: Callable[[Ref], Ref]) -> Ref | None:
        if node.op != "sign":
            return None
        moves: list[Node] = []
        number = int(node.inputs[0])
        while number and counts[number] == 1 and graph.type_of(number).kind == "float32":
            move = graph.nodes[number - 1]
            if move.op not in _MOVES:
                break
            moves.insert(0, move)
            number = int(move.inputs[0])
        x = builder.add("sign", moved(number))
        for move in moves:
            x = builder.add(move.op, x, **move.attributes)
        return x

    return rewrite(graph, rule)


_MOVES = ("max_pool", "reshape", "transpose", "slice", "reverse")
