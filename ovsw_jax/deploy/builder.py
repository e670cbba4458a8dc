"""Makes graphs, node by node, and rewrites them."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ovsw_jax.deploy.graph import Graph, Node, Ref, Signs, Tensor, Type, type_of_tensor
from ovsw_jax.deploy.operations import NEUTRAL, OPERATIONS, Operand, infer, with_defaults


class Builder:
    """A graph that grows; what is added twice is there once."""

    def __init__(self, input_type: Type):
        """Starts with the input alone."""
        self.input = input_type
        self.nodes: list[Node] = []
        self.tensors: dict[str, Tensor] = {}
        self._numbers: dict[Any, int] = {}
        self._names: dict[Any, str] = {}

    def add(self, op: str, *inputs: Ref, layer: str = "", **attributes: Any) -> int:
        """Adds a node, unless it is there; gives the number of its result.

        Raises:
          ValueError: if there is no such operation of such inputs and attributes.
        """
        given = {k: f for k, v in attributes.items() if not _is_default(op, k, f := _frozen(v))}
        key = (op, tuple((type(i), i) for i in inputs), tuple(sorted(given.items())))
        if key not in self._numbers:
            operands = [Operand(self.type_of(i), not isinstance(i, int)) for i in inputs]
            result = infer(op, operands, given)
            # Where a network's own numbers are: what stands between layers is of none.
            of_layer = layer if any(isinstance(i, str) for i in inputs) else ""
            self.nodes.append(Node(op, inputs, given, result, of_layer))
            self._numbers[key] = len(self.nodes)
        return self._numbers[key]

    def tensor(self, tensor: Tensor) -> Ref:
        """The name of a tensor, or the number itself where an array holds but one."""
        if isinstance(tensor, Signs):
            key: Any = ("signs", tensor.shape, tensor.bits.tobytes())
        else:
            if tensor.shape == () and np.isfinite(tensor):
                return float(tensor)
            key = (tensor.dtype.name, tensor.shape, tensor.tobytes())
        if key not in self._names:
            self._names[key] = f"t{len(self._names)}"
            self.tensors[self._names[key]] = tensor
        return self._names[key]

    def type_of(self, ref: Ref) -> Type:
        """Type of a result, a tensor or a number."""
        if isinstance(ref, str):
            return type_of_tensor(self.tensors[ref])
        if isinstance(ref, float):
            return Type("float32", ())
        return self.input if ref == 0 else self.nodes[ref - 1].type

    def made_by(self, ref: Ref, *ops: str) -> Node | None:
        """The node that gives a result, if it is one of these operations."""
        if not isinstance(ref, int) or ref == 0 or self.nodes[ref - 1].op not in ops:
            return None
        return self.nodes[ref - 1]

    def constant(self, ref: Ref) -> np.ndarray | None:
        """A constant as a float32 array, or None of a result or of `Signs`."""
        if isinstance(ref, float):
            return np.asarray(ref, np.float32)
        tensor = self.tensors[ref] if isinstance(ref, str) else None
        return None if tensor is None or isinstance(tensor, Signs) else tensor

    def per_channel(self, ref: Ref, channels: int) -> np.ndarray | None:
        """A constant of one number, or of one per channel; None of anything else."""
        array = self.constant(ref)
        return array if array is not None and array.shape in ((), (channels,)) else None

    def graph(self, output: Ref) -> Graph:
        """The graph of one result, without what it does not need, its tensors named in order."""
        needed: set[Ref] = {output}
        for number in range(len(self.nodes), 0, -1):
            if number in needed:
                needed.update(i for i in self.nodes[number - 1].inputs if isinstance(i, int))
        numbers: dict[Ref, Ref] = {0: 0}
        names: dict[Ref, Ref] = {}
        nodes = []
        for number, node in enumerate(self.nodes, start=1):
            if number not in needed:
                continue
            for ref in node.inputs:
                if isinstance(ref, str):
                    names.setdefault(ref, f"t{len(names)}")
            inputs = tuple(
                ref if isinstance(ref, float) else (names if isinstance(ref, str) else numbers)[ref]
                for ref in node.inputs
            )
            nodes.append(Node(node.op, inputs, node.attributes, node.type, node.layer))
            numbers[number] = len(nodes)
        tensors = {str(new): self.tensors[str(old)] for old, new in names.items()}
        return Graph(self.input, tuple(nodes), tensors, int(numbers[output]))


# Of a node of the old graph, and what gives the place in the new one of each thing that it takes:
# what takes the place of the node, or None to leave it as it is.
Rule = Callable[[Builder, Node, Callable[[Ref], Ref]], Ref | None]


def rewrite(graph: Graph, rule: Rule) -> Graph:
    """The graph that a rule makes of each node of another, from input to output."""
    builder = Builder(graph.input)
    numbers: dict[Ref, Ref] = {0: 0}

    def moved(ref: Ref) -> Ref:
        if isinstance(ref, str):
            return builder.tensor(graph.tensors[ref])
        return ref if isinstance(ref, float) else numbers[ref]

    for number, node in enumerate(graph.nodes, start=1):
        result = rule(builder, node, moved)
        if result is None:
            inputs = map(moved, node.inputs)
            result = builder.add(node.op, *inputs, layer=node.layer, **node.attributes)
        numbers[number] = result
    return builder.graph(numbers[graph.output])


def uses(nodes: Sequence[Node], output: int) -> dict[int, int]:
    """How often each result is taken, by its number; the output counts as once."""
    counts = {output: 1}
    for node in nodes:
        for ref in node.inputs:
            if isinstance(ref, int):
                counts[ref] = counts.get(ref, 0) + 1
    return counts


def attributes_of(node: Node) -> dict[str, Any]:
    """All attributes of a node, those that it leaves out included."""
    return with_defaults(node.op, node.attributes)


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list | tuple) else value


def _is_default(op: str, name: str, value: Any) -> bool:
    """Whether an attribute says what its absence means, as strides of 1 do."""
    known = OPERATIONS[op].attributes.get(name) if op in OPERATIONS else None
    if known is None or known[1] is ...:
        return False
    neutral = NEUTRAL.get(name)
    return value == known[1] or (neutral is not None and all(v == neutral for v in value))
