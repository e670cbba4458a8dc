"""Finds weights that are signs, or signs times a factor of their filter, and keeps one bit each."""

from collections.abc import Callable

import numpy as np

from ovsw_jax.deploy.builder import Builder, rewrite
from ovsw_jax.deploy.graph import Graph, Node, Ref, Signs


def pack_binary_weights(graph: Graph) -> Graph:
    """Products with `Signs` where the weights are; a factor comes behind the product."""
    return rewrite(graph, _packed)


def _packed(builder: Builder, node: Node, moved: Callable[[Ref], Ref]) -> Ref | None:
    if node.op not in ("conv", "dense"):
        return None
    x, weights = map(moved, node.inputs)
    kernel = builder.constant(weights)
    factors = None if kernel is None else _factors(kernel)
    if kernel is None or factors is None:
        return None
    signs = builder.tensor(Signs.of(kernel))
    result = builder.add(node.op, x, signs, layer=node.layer, **node.attributes)
    if (factors == 1).all():
        return result
    return builder.add("mul", result, builder.tensor(factors), layer=node.layer)


def _factors(kernel: np.ndarray) -> np.ndarray | None:
    """The magnitude of each filter's weights, if they share one above 0."""
    filters = np.abs(kernel.reshape(len(kernel), -1))
    factors = filters[:, 0]
    if not (filters == factors[:, None]).all() or not (factors > 0).all():
        return None
    # Any real number is a sign times a magnitude: a filter of one weight is not binary for that.
    return factors if filters.shape[1] > 1 or (factors == 1).all() else None
