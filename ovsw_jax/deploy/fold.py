"""Folds what scales and shifts each channel into one `affine`: factors, biases, batch norms."""

from collections.abc import Callable

import numpy as np

from ovsw_jax.deploy.builder import Builder, rewrite
from ovsw_jax.deploy.graph import Graph, Node, Ref

# scale and offset in float64: rounded once, however many operations there were
_Exact = tuple[Ref, np.ndarray, np.ndarray]


def fold_affine(graph: Graph) -> Graph:
    """One `affine` for each run of sums, differences, products and quotients with constants."""
    exact: dict[Ref, _Exact] = {}

    def rule(builder: Builder, node: Node, moved: Callable[[Ref], Ref]) -> Ref | None:
        if node.op not in ("add", "sub", "mul", "div"):
            return None
        found = _exact(builder, node.op, [moved(r) for r in node.inputs], exact)
        if found is None:
            return None
        x, scale, offset = found
        if (scale == 1).all() and (offset == 0).all():
            return x
        parameters = (builder.tensor(_rounded(p)) for p in (scale, offset))
        result = builder.add("affine", x, *parameters, layer=node.layer)
        exact[result] = found
        return result

    return rewrite(graph, rule)


def _exact(builder: Builder, op: str, inputs: list[Ref], known: dict[Ref, _Exact]) -> _Exact | None:
    a, b = inputs
    value, other = (a, b) if isinstance(a, int) else (b, a)
    shape = builder.type_of(value).shape
    constant = builder.per_channel(other, shape[-1] if shape else 1)
    if constant is None or (op == "div" and value == b):
        return None
    c = constant.astype(np.float64)
    x, scale, offset = known.get(value, (value, np.ones(()), np.zeros(())))
    with np.errstate(all="ignore"):
        if op == "mul":
            scale, offset = scale * c, offset * c
        elif op == "div":
            scale, offset = scale / c, offset / c
        elif op == "add":
            offset = offset + c
        elif value == a:
            offset = offset - c
        else:
            scale, offset = -scale, c - offset
        finite = np.isfinite([*_flat(scale), *_flat(offset)]).all()
    return (x, scale, offset) if finite else None


def _flat(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float32).ravel()


def _rounded(array: np.ndarray) -> np.ndarray:
    rounded = np.asarray(array, np.float32)
    same = rounded.size > 0 and (rounded == rounded.flat[0]).all()
    return np.asarray(rounded.flat[0]) if same else rounded
