"""Multiply-accumulates of convolutions and matrix products.

Each product of two numbers that is added to a sum counts as one: for a convolution, elements of
the output times weights of one filter, zeros of the padding and of a dilated input included.
"""

import math
from typing import Any


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
