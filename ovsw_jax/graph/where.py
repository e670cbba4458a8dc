"""Which layers `ovsw.binarize` makes binary: ready-made functions for `where=`, to be combined."""

import math
import re
from collections.abc import Callable
from typing import Any

from flax import nnx

from ovsw_jax.graph.module_tree import Path

Where = Callable[[Path, nnx.Module], bool]

WORD = 64  # signs that a machine word holds

_SQUEEZE = re.compile(r"(^|_)(se|squeeze|excit\w*|squeeze_?excit\w*)($|_|\d)", re.IGNORECASE)


class Refinement:
    """The default of `ovsw.binarize`, of which some layers stay real; combined by `&`.

    A function of path and layer, True for those to make binary. Where `ovsw.binarize` is given one,
    the first and the last layer, and what is no `nnx.Conv` or `nnx.Linear`, stay real as by
    default.
    """

    def __init__(self, name: str, *tests: Where):
        """Combines functions of path and layer; all must be True."""
        self._name, self._tests = name, tests

    def __call__(self, path: Path, layer: nnx.Module) -> bool:
        """Whether to make a layer binary, as far as this refinement tells."""
        return all(test(path, layer) for test in self._tests)

    def refusal(self, path: Path, layer: nnx.Module) -> str | None:
        """Name of the function that keeps a layer real, or None."""
        for test in self._tests:
            inner = test.refusal(path, layer) if isinstance(test, Refinement) else None
            if inner is not None:
                return inner
            if not isinstance(test, Refinement) and not test(path, layer):
                is_own = len(self._tests) == 1
                return self._name if is_own else getattr(test, "__name__", repr(test))
        return None

    def __and__(self, other: Where) -> "Refinement":
        if not callable(other):
            return NotImplemented
        name = getattr(other, "_name", getattr(other, "__name__", repr(other)))
        return Refinement(f"{self._name} & {name}", self, other)

    def __rand__(self, other: Where) -> "Refinement":
        return self & other

    def __repr__(self) -> str:
        return self._name


def _is_dense(path: Path, layer: Any) -> bool:
    return getattr(layer, "feature_group_count", 1) == 1 or layer.feature_group_count != (
        layer.in_features
    )


def _is_wide(path: Path, layer: Any) -> bool:
    return _products_per_output(layer) >= WORD


def _is_in_no_squeeze(path: Path, layer: Any) -> bool:
    return not any(isinstance(key, str) and _SQUEEZE.search(_words(key)) for key in path)


def _words(name: str) -> str:
    """`SqueezeExcite` as `Squeeze_Excite`."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name)


def _products_per_output(layer: Any) -> int:
    features = layer.in_features
    inputs = math.prod(features) if isinstance(features, tuple) else features
    if not isinstance(layer, nnx.Conv):
        return inputs
    size = layer.kernel_size
    window = size if isinstance(size, tuple | list) else (size,)
    return math.prod(window) * inputs // layer.feature_group_count


skip_depthwise = Refinement("ovsw.skip_depthwise", _is_dense)
"""For `where=` of `ovsw.binarize`: depthwise convolutions stay real.

One with a group for each input channel sums as few products as its window has places, and has few
weights to save.
"""

skip_squeeze_excite = Refinement("ovsw.skip_squeeze_excite", _is_in_no_squeeze)
"""For `where=` of `ovsw.binarize`: the layers of squeeze-and-excitation stay real.

They see one vector per image and scale whole channels. They are told by names in their path: `se`,
`squeeze`, `excite` and the like, alone or with other words.
"""

skip_narrow = Refinement("ovsw.skip_narrow", _is_wide)
"""For `where=` of `ovsw.binarize`: layers that sum fewer than 64 products per output stay real.

A sum of n signs has n + 1 values, and a machine word multiplies 64 of them at once.
"""
