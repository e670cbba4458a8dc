"""Multiply-accumulates of the convolutions and matrix products in a jaxpr.

Each product of two numbers that is added to a sum counts as one: for a convolution, elements of
the output times weights of one filter, zeros of the padding and of a dilated input included.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

from jax.extend.core import jaxprs_in_params


class Equation(NamedTuple):
    """One operation of a program, or of a program within it.

    Fields:
      operation: the JaxprEqn.
      scope: names of the scopes around it, outermost first.
      times: how often it runs.
    """

    operation: Any
    scope: str
    times: int


def equations(jaxpr: Any, scope: str = "", times: int = 1) -> Iterator[Equation]:
    """All operations, those of inner programs included.

    The body of a scan runs once a step. Of a loop whose number of steps is not known one step is
    taken, and of a conditional the branch with the most multiply-accumulates.
    """
    for operation in jaxpr.eqns:
        inside = f"{scope}/{operation.source_info.name_stack}"
        yield Equation(operation, inside, times)
        name = operation.primitive.name
        if name == "cond":
            branches = [
                list(equations(branch.jaxpr, inside, times))
                for branch in operation.params["branches"]
            ]
            yield from max(branches, key=lambda b: sum(macs(e.operation) * e.times for e in b))
        elif name != "pallas_call":  # a program for one tile: how many there are is its own affair
            steps = operation.params["length"] if name == "scan" else 1
            for inner in jaxprs_in_params(operation.params):
                yield from equations(inner, inside, times * steps)


def macs(operation: Any) -> int:
    """Multiply-accumulates of one operation; 0 unless it is a convolution or a matrix product."""
    name = operation.primitive.name
    if name not in ("conv_general_dilated", "dot_general"):
        return 0
    left, right = (operand.aval.shape for operand in operation.invars)
    if name == "conv_general_dilated":
        spec = operation.params["dimension_numbers"].rhs_spec
        terms = math.prod(right[axis] for axis in spec[1:])
    else:
        (contracted, _), _ = operation.params["dimension_numbers"]
        terms = math.prod(left[axis] for axis in contracted)
    return math.prod(operation.outvars[0].aval.shape) * terms


def operand_dtypes(operation: Any) -> str:
    """Dtype in which an operation multiplies: one name, or two if its operands differ."""
    names = dict.fromkeys(operand.aval.dtype.name for operand in operation.invars)
    return " x ".join(names)
