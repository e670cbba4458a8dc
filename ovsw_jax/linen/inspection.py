"""Whether the binary layers of a Flax linen network can learn: measured on one batch."""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax
from flax import linen, nnx
from flax.core import DenyList

from ovsw_jax.graph.call import Call, call_with
from ovsw_jax.graph.inspection import (
    callable_or_none,
    check_has_values,
    check_hashable,
    first_array,
    no_binary_layer,
)
from ovsw_jax.graph.inspection_table import Inspection, LayerInspection
from ovsw_jax.graph.marked_layers import mark_observed
from ovsw_jax.graph.measures import SignedCall, measure, of_calls
from ovsw_jax.graph.observed import by_layer, observed
from ovsw_jax.latent import LATENT_KEY
from ovsw_jax.linen.dense_general import BinaryDenseGeneral
from ovsw_jax.linen.layers import BinaryConv, BinaryDense
from ovsw_jax.linen.threshold import LearnedThresholdSign
from ovsw_jax.nn._kernels.arithmetic import before_sign
from ovsw_jax.nn._kernels.features import axes_of, features_last

Path = tuple[str, ...]


def inspect(
    module: linen.Module, variables: Mapping[str, Any], *args: Any, rngs: Any = None, **kwargs: Any
) -> Inspection:
    """Measures on a batch whether the binary layers of a Flax linen network can learn.

    As `ovsw.inspect`, called like `module.apply`: the call says whether it trains, and gradients
    are for training, so give `train=True` or what your network calls it. Variables don't change,
    and what the call would change of them, such as batch statistics, is dropped.

    Args:
      module: the network.
      variables: its parameters and other collections, as of `module.apply`.
      *args: positional arguments of its call, a batch of 8 to 64 samples among them.
      rngs: random keys by name, as of `module.apply`, for dropout.
      **kwargs: keyword arguments of its call.

    Returns:
      As `ovsw.inspect`. Layers that the call does not reach are no part of it.

    Raises:
      TypeError: if `module` is no linen module, or an argument can't be hashed.
      ValueError: if an input is given by shape alone, it has no binary layer, or a layer is called
        where it can't be observed, as within a `shard_map`.

    Example:
      >>> import jax, ovsw_jax as ovsw
      >>> from flax import linen
      >>> layers = [linen.Dense(16), linen.relu, ovsw.linen.BinaryDense(4, train=True)]
      >>> model = linen.Sequential(layers)
      >>> x = jax.random.normal(jax.random.key(0), (32, 8))
      >>> inspection = ovsw.linen.inspect(model, model.init(jax.random.key(1), x), x)
      >>> inspection.rows[0].name, inspection.rows[0].verdict
      ('layers_2', 'every input sign is +1, since no input is negative')

    Source: ours.
    """
    if not isinstance(module, linen.Module):
        remedy = " Call ovsw.inspect(model, x)." if isinstance(module, nnx.Module) else ""
        raise TypeError(
            f"ovsw.linen.inspect takes a linen module, but got {type(module).__name__}.{remedy}"
        )
    if not isinstance(variables, Mapping):
        raise TypeError(
            f"variables={variables!r} is no mapping: give what module.init returned, as to "
            "module.apply."
        )
    if "params" not in variables:
        raise ValueError(
            f"variables has no params, but {sorted(map(str, variables))}: give all that "
            'module.init returned, or {"params": params}.'
        )
    call = call_with(args, kwargs)
    check_has_values(call, "ovsw.linen.inspect")
    fixed = (tuple(call.arrays), call.rest, call.structure)
    check_hashable(type(module).__name__, fixed, "ovsw.linen.inspect")
    return _inspected(_Fixed(module), fixed, variables, rngs, list(call.arrays.values()))


class _Fixed:
    """A module as a static argument: a `Sequential` of a list, say, can't be hashed itself."""

    def __init__(self, module: linen.Module):
        self.module = module
        try:
            self._hash = hash(module)
        except TypeError:
            self._hash = id(module)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Fixed) and self.module == other.module


@partial(jax.jit, static_argnums=(0, 1))
def _inspected(
    fixed_module: _Fixed, fixed: Any, variables: Any, rngs: Any, arrays: Sequence[jax.Array]
) -> Inspection:
    module = fixed_module.module
    names, rest, structure = fixed
    call = Call(dict(zip(names, arrays, strict=True)), rest, structure)
    seen: dict[Path, LayerInspection] = {}

    def look(method: Any, args: Any, kwargs: Any, context: Any) -> Any:
        result = method(*args, **kwargs)
        layer, x = context.module, first_array((*args, *kwargs.values()))
        is_call = context.method_name == "__call__" and isinstance(result, jax.Array)
        if is_call and x is not None and _is_binary(layer):
            seen.setdefault(layer.path, _row(layer, x))
            number = list(seen).index(layer.path)
            mark_observed(number, measure(_signed_call(layer, x, args, kwargs, result)))
        return result

    def applied(variables: Any, rngs: Any, arrays: Sequence[jax.Array]) -> Any:
        mutable = DenyList(("params",))
        result, _ = call.of(partial(module.apply, variables, rngs=rngs, mutable=mutable), arrays)
        return [leaf for leaf in jax.tree.leaves(result) if isinstance(leaf, jax.Array)]

    with linen.intercept_methods(look):
        program = jax.make_jaxpr(applied)(variables, rngs, arrays)
    if not seen:
        remedy = "Put one into it, such as ovsw.linen.BinaryConv."
        raise ValueError(no_binary_layer(type(module).__name__, remedy))
    found = by_layer(observed(program, jax.tree.leaves((variables, rngs, arrays))))
    params = linen.meta.unbox(dict(variables.get("params", {})))
    return Inspection(
        tuple(
            LayerInspection(
                row.name,
                row.kind,
                row.input_dtype,
                row.learns_threshold,
                of_calls(found.get(number, []), _latent_size(params, path)),
            )
            for number, (path, row) in enumerate(seen.items())
        )
    )


def _row(layer: Any, x: jax.Array) -> LayerInspection:
    """What is known of a layer without its measures."""
    learns = isinstance(getattr(layer, "input_sign", None), LearnedThresholdSign)
    return LayerInspection("/".join(layer.path), type(layer).__name__, x.dtype.name, learns, {})


def _signed_call(layer: Any, x: jax.Array, args: Any, kwargs: Any, y: jax.Array) -> SignedCall:
    latent = linen.meta.unbox(dict(layer.variables.get("params", {}))).get(LATENT_KEY)
    if isinstance(layer, BinaryDenseGeneral):
        joined = features_last(x, None, axes_of(layer.axis))
        x, y = joined, y.reshape(*joined.shape[:-1], math.prod(y.shape[joined.ndim - 1 :]))
        latent = None if latent is None else latent.reshape(-1, y.shape[-1])
    if isinstance(layer, BinaryConv | BinaryDense | BinaryDenseGeneral):
        window = layer.kernel_size if isinstance(layer, BinaryConv) else ()
        axes = 2 if isinstance(window, int) else len(window) + 1
        train = args[1] if len(args) > 1 else kwargs.get("train")
        before = before_sign(
            x, axes, normalize=layer.normalize_input, training=layer._is_training(train)
        )
    else:
        axes, before = max(0, x.ndim - 1), x
    return SignedCall(
        x,
        before,
        _as_function(getattr(layer, "input_sign", None)),
        latent,
        _as_function(getattr(layer, "kernel_sign", None)),
        y,
        x.ndim - axes,
    )


def _as_function(sign: Any) -> Any:
    """A sign that can be differentiated: a linen module can't be called in a transform of JAX."""
    if isinstance(sign, linen.Module):
        module, variables = sign.unbind()
        return partial(module.apply, variables)
    return callable_or_none(sign)


def _is_binary(layer: Any) -> bool:
    signs = (getattr(layer, name, None) for name in ("input_sign", "kernel_sign"))
    return any(map(callable, signs)) or LATENT_KEY in layer.variables.get("params", {})


def _latent_size(params: Any, path: Path) -> int:
    for key in (*path, LATENT_KEY):
        params = params.get(key, {}) if isinstance(params, Mapping) else {}
    return sum(x.size for x in jax.tree.leaves(params))
