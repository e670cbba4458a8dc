"""The graph of a frozen network: plain data, NumPy arrays alone, no framework.

Shapes are those of one sample, without the batch axis, and channels are last. Every result has a
number: the input is 0, and node i of the list is i + 1. A node takes earlier results alone, so a
graph has no cycles.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np

Kind = Literal["float32", "int32", "signs", "bool"]
# What a node takes: the number of a result, the name of a tensor, or a float that is a constant.
Ref = int | str | float


@dataclasses.dataclass(frozen=True, eq=False)
class Signs:
    """An array of signs, one bit each: 1 for +1, 0 for -1.

    Attributes:
      shape: of the array.
      bits: uint8, (ceil(size / 8),). The signs in row-major order, the first one in the lowest bit
        of the first byte; bits that no sign has are 0.
    """

    shape: tuple[int, ...]
    bits: np.ndarray

    @classmethod
    def of(cls, array: np.ndarray) -> "Signs":
        """The signs of an array; zero counts as +1."""
        return cls(array.shape, np.packbits(array.ravel() >= 0, bitorder="little"))

    def positive(self) -> np.ndarray:
        """Where the sign is +1: bool, of `shape`."""
        size = math.prod(self.shape)
        return (
            np.unpackbits(self.bits, count=size, bitorder="little").astype(bool).reshape(self.shape)
        )

    def values(self) -> np.ndarray:
        """The signs as float32 numbers, of `shape`."""
        return np.where(self.positive(), np.float32(1), np.float32(-1))


Tensor = np.ndarray | Signs


class Type(NamedTuple):
    """What a result is.

    Fields:
      kind: `"float32"`; `"signs"`, which are +1 or -1; `"int32"`, sums of products of signs; or
        `"bool"`. Where an operation takes float32, all but bool count as the numbers that they are.
      shape: of one sample.
    """

    kind: Kind
    shape: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Node:
    """One operation.

    Attributes:
      op: its name; `ovsw_jax.deploy.operations` lists all.
      inputs: what it takes.
      attributes: its constants by name.
      type: of its result.
      layer: path of the layer of the original network whose tensors it takes, joined by "/".
    """

    op: str
    inputs: tuple[Ref, ...]
    attributes: Mapping[str, Any]
    type: Type
    layer: str = ""


@dataclasses.dataclass(frozen=True)
class Graph:
    """A network from one input to one output.

    Attributes:
      input: type of the input.
      nodes: in the order in which they can be computed.
      tensors: float32 or int32 arrays and `Signs`, by name.
      output: number of the result that is the network's.
    """

    input: Type
    nodes: tuple[Node, ...]
    tensors: Mapping[str, Tensor]
    output: int

    def type_of(self, ref: Ref) -> Type:
        """Type of a result, a tensor or a constant."""
        if isinstance(ref, str):
            return type_of_tensor(self.tensors[ref])
        if isinstance(ref, float):
            return Type("float32", ())
        return self.input if ref == 0 else self.nodes[ref - 1].type


def type_of_tensor(tensor: Tensor) -> Type:
    """Type of a tensor, which belongs to no sample."""
    if isinstance(tensor, Signs):
        return Type("signs", tensor.shape)
    return Type("int32" if tensor.dtype == np.int32 else "float32", tensor.shape)
