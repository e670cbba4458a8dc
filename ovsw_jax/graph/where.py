"""Which layers `ovsw.binarize` makes binary: ready-made functions for `where=`, to be combined."""

import functools
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

    def __init__(self, *tests: Where):
        """Combines functions of path and layer; all must be True."""
        self._tests = tests
        if len(tests) == 1:
            functools.update_wrapper(self, tests[0])

    def __call__(self, path: Path, layer: nnx.Module) -> bool:
        """Whether to make a layer binary, as far as this refinement tells."""
        return self.refusal(path, layer) is None

    def refusal(self, path: Path, layer: nnx.Module) -> str | None:
        """Name of the function that keeps a layer real, or None."""
        return next((_name(test) for test in self._tests if not test(path, layer)), None)

    def __and__(self, other: Where) -> "Refinement":
        if not callable(other):
            raise TypeError(
                f"{self!r} & {other!r}: the other one must be a function of path and layer, such "
                "as ovsw.skip_narrow."
            )
        return Refinement(
            *self._tests, *(other._tests if isinstance(other, Refinement) else [other])
        )

    def __rand__(self, other: Where) -> "Refinement":
        return self & other

    def __or__(self, other: object) -> "Refinement":
        raise TypeError(
            f"{self!r} | {other!r}: each of them keeps some layers real, which & combines. For "
            "another choice give where= a plain function of path and layer."
        )

    __ror__ = __or__

    def __repr__(self) -> str:
        return " & ".join(map(_name, self._tests))


def _name(test: Where) -> str:
    name = getattr(test, "__name__", repr(test))
    return f"ovsw.{name}" if getattr(test, "__module__", None) == __name__ else name


@Refinement
def skip_depthwise(path: Path, layer: Any) -> bool:
    """For `where=` of `ovsw.binarize`: depthwise convolutions stay real, too.

    One with a group for each input channel sums as few products as its window has places, and has
    few weights to save.

    Args:
      path: of the layer.
      layer: an `nnx.Conv` or `nnx.Linear`.

    Returns:
      Whether to make it binary. `ovsw.skip_depthwise & other` combines it with another such
      function.

    Example:
      >>> import ovsw_jax as ovsw
      >>> rngs = nnx.Rngs(0)
      >>> depthwise = nnx.Conv(8, 8, (3, 3), feature_group_count=8, rngs=rngs)
      >>> ovsw.skip_depthwise((), depthwise), ovsw.skip_depthwise((), nnx.Linear(8, 8, rngs=rngs))
      (False, True)

    Source: ours.
    """
    groups = getattr(layer, "feature_group_count", 1)
    return groups == 1 or groups != layer.in_features


@Refinement
def skip_squeeze_excite(path: Path, layer: Any) -> bool:
    """For `where=` of `ovsw.binarize`: the layers of squeeze-and-excitation stay real, too.

    They see one vector per image and scale whole channels. They are told by names in their path:
    `se`, `squeeze`, `excite` and the like, alone or with other words.

    Args:
      path: of the layer.
      layer: an `nnx.Conv` or `nnx.Linear`.

    Returns:
      Whether to make it binary. `ovsw.skip_squeeze_excite & other` combines it with another such
      function.

    Example:
      >>> import ovsw_jax as ovsw
      >>> layer = nnx.Linear(8, 8, rngs=nnx.Rngs(0))
      >>> ovsw.skip_squeeze_excite(("block1", "se", "fc1"), layer)
      False

    Source: ours.
    """
    return not any(isinstance(key, str) and _SQUEEZE.search(_words(key)) for key in path)


@Refinement
def skip_narrow(path: Path, layer: Any) -> bool:
    """For `where=` of `ovsw.binarize`: layers that sum fewer than 64 products stay real, too.

    That is input channels of a group times places of the window. A sum of n signs has n + 1 values,
    and a machine word multiplies 64 of them at once.

    Args:
      path: of the layer.
      layer: an `nnx.Conv` or `nnx.Linear`.

    Returns:
      Whether to make it binary. `ovsw.skip_narrow & other` combines it with another such function.

    Example:
      >>> import ovsw_jax as ovsw
      >>> layers = [nnx.Linear(n, 8, rngs=nnx.Rngs(0)) for n in (32, 64)]
      >>> [ovsw.skip_narrow((), layer) for layer in layers]
      [False, True]

    Source: ours.
    """
    return _products_per_output(layer) >= WORD


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
