"""Reads the program of a network as a graph: one operation for each operation of JAX."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from ovsw_jax.deploy.builder import Builder
from ovsw_jax.deploy.graph import Graph, Ref, Type
from ovsw_jax.deploy.jax_operations import HANDLERS
from ovsw_jax.deploy.reader import CannotFreezeError, Constant, RawNode, Reader, Result
from ovsw_jax.graph.trace import Trace


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
    reader = Reader(paths, HANDLERS)

    def constants(arrays: Sequence[Any]) -> list[Any]:
        given = Result(0, aval.shape, aval.dtype)
        results = reader.run(program.jaxpr, program.consts, [*arrays, given], "")
        reader.finish(results)
        return reader.constants

    values = [np.asarray(value) for value in jax.jit(constants)(list(arrays))]
    return _typed(reader, values, Type("float32", tuple(aval.shape[1:])))


def _typed(reader: Reader, values: Sequence[np.ndarray], input_type: Type) -> Graph:
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
            if not isinstance(ref, Constant):
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


def _needed(reader: Reader) -> set[int]:
    needed = {reader.output}
    for number in range(len(reader.nodes), 0, -1):
        if number in needed:
            inputs = reader.nodes[number - 1].inputs
            needed.update(ref for ref in inputs if not isinstance(ref, Constant))
    return needed


def _of_each_sample(array: np.ndarray, node: RawNode) -> np.ndarray:
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
