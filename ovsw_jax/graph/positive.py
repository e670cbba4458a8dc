"""Warns of layers of a binary network all of whose input signs are the same."""

import functools
import warnings
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from ovsw_jax.graph.call import call_with
from ovsw_jax.graph.faults import BOTH_SIGNS, ONE_SIGN
from ovsw_jax.graph.inspection import inspect
from ovsw_jax.graph.module_tree import Path, at
from ovsw_jax.nn.threshold import LearnedThresholdSign

# Functions whose results are never negative, whatever they are given.
_POSITIVE = (
    jax.nn.relu,
    jax.nn.relu6,
    jax.nn.sigmoid,
    jax.nn.hard_sigmoid,
    jax.nn.softplus,
    jax.nn.softmax,
    jax.nn.squareplus,
    jnp.abs,
    jnp.square,
    jnp.exp,
)
# Functions whose results are not negative if what they are given is not.
_PASSING = (nnx.max_pool, nnx.avg_pool, jnp.ravel)


def warn_of_one_sign(
    network: nnx.Module, binary: Sequence[Path], input_shape: Sequence[int] | None
) -> None:
    """Warns of each binary layer that is known to have inputs of one sign.

    Args:
      network: the binary network.
      binary: paths of its new layers.
      input_shape: of a batch that it is run on, or None.

    Raises:
      ValueError: if it can't be run on such a batch.
    """
    told = {}
    for path in binary:
        layer = at(network, path)
        learns = isinstance(layer.input_sign, LearnedThresholdSign)
        if layer.input_sign is not None and not learns:
            told[path] = _positive_before(network, path)
    for path, function in told.items():
        if function is not None:
            kind = type(at(network, path)).__name__
            _warn(path, kind, f"comes after {function}, whose results are")
    if input_shape is None:
        return
    for row in _inspected(network, input_shape):
        alike = row.numbers().get("positive_input_ratio", 0) > ONE_SIGN
        for path in binary:
            new = "/".join(map(str, path)) == row.name and told.get(path) is None
            if alike and new and not row.learns_threshold:
                _warn(path, row.kind, "gets inputs that are")


def _warn(path: Path, kind: str, why: str) -> None:
    name = "/".join(map(str, path)) or "the model"
    warnings.warn(
        f"{name} ({kind}) {why} never negative: all of its input signs would be +1, and it would "
        f"learn nothing. Instead, {BOTH_SIGNS}",
        stacklevel=4,
    )


def _inspected(network: nnx.Module, input_shape: Sequence[int]) -> Any:
    (shape,) = call_with([input_shape], {}).abstract.values()
    if any(isinstance(x, jax.ShapeDtypeStruct) for x in jax.tree.leaves(nnx.state(network))):
        raise ValueError(
            f"input_shape={tuple(input_shape)} runs the network, whose arrays are abstract: "
            "omit it, or make the network itself."
        )
    return inspect(network, jax.random.normal(jax.random.key(0), shape.shape)).rows


def _positive_before(network: nnx.Module, path: Path) -> str | None:
    """Name of the function before a layer of an `nnx.Sequential` that gives nothing negative."""
    for function in _before(network, path):
        made = function.func if isinstance(function, functools.partial) else function
        if any(made is known for known in _POSITIVE):
            return str(getattr(made, "__name__", made))
        if not any(made is known for known in _PASSING) and not isinstance(made, nnx.Dropout):
            return None
    return None


def _before(network: nnx.Module, path: Path) -> list[Any]:
    """What runs before a layer in the sequences that it is part of, the nearest first."""
    found: list[Any] = []
    while path[-2:-1] == ("layers",):
        sequence = at(network, path[:-2])
        if not isinstance(sequence, nnx.Sequential):
            break
        earlier = list(sequence.layers)[: int(path[-1])]
        found += [x for function in earlier[::-1] for x in _flat(function)]
        path = path[:-2]
    return found


def _flat(function: Any) -> list[Any]:
    """The functions of a nested sequence, the last first."""
    if isinstance(function, nnx.Sequential):
        return [x for inner in function.layers[::-1] for x in _flat(inner)]
    return [function]
