"""Whether the binary layers of a network can learn: measured on one batch, layer by layer."""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from ovsw_jax.graph.call import Call, call_with
from ovsw_jax.graph.inspection_table import Inspection, LayerInspection
from ovsw_jax.graph.measures import SignedCall, measure, of_calls
from ovsw_jax.graph.module_tree import Path, check_is_nnx, check_seen
from ovsw_jax.graph.observed import by_layer, observed
from ovsw_jax.graph.trace import Trace, explained_trace
from ovsw_jax.hyperparams import check_flag
from ovsw_jax.latent import LATENT_KEY
from ovsw_jax.nn._kernels.arithmetic import before_sign
from ovsw_jax.nn._kernels.features import features_last
from ovsw_jax.nn.layers import BinaryConv, BinaryDense
from ovsw_jax.nn.linear_general import BinaryLinearGeneral
from ovsw_jax.nn.threshold import LearnedThresholdSign


def inspect(
    model: nnx.Module, *inputs: Any, evaluation: bool = False, **named_inputs: Any
) -> Inspection:
    """Measures on a batch whether the binary layers of a Flax NNX network can learn.

    A binary layer computes something whatever it is given, so a network in which it learns nothing
    runs without an error: a ReLU in front of it makes every sign +1, and inputs outside the window
    of their sign's gradient pass none. Here each binary layer gets a row of measures, and a verdict
    in words with the remedy.

    The network is run once, in training mode whatever mode it is in, since gradients are for
    training: layers divide their inputs, and batch norms use the batch. It does not change:
    running statistics, counts of random streams and modes stay. Pass `evaluation=True` for what
    evaluation computes.

    Layers are those of `ovsw.nn`, and every module that has an `input_sign`, a `kernel_sign`, or a
    `latent_kernel`. They may be anywhere in modules of your own, be called several times, and be
    stacked by `nnx.vmap` and `nnx.scan`; a row is over all calls and the whole stack. The
    pseudo-gradients are the derivatives of the signs that the layers hold. For a layer of your own
    the sign is taken at the first array of its call, whose first axis is that of the samples.

    The measures are computed by one compiled function, which compiles once for a model and a shape.
    They can be taken within `jax.jit` and `jax.vmap`: the result is a pytree of arrays there, and
    has verdicts once it is returned.

    Args:
      model: the network.
      *inputs: positional arguments of its call: a batch of 8 to 64 samples tells enough. One sample
        does not tell which channels are constant.
      evaluation: run it in evaluation mode.
      **named_inputs: keyword arguments of its call.

    Returns:
      An `Inspection`: print it, look at `faults` and `rows`, log `metrics()`, or call
      `to_markdown()` or `to_dict()`. Notebooks show it as a table.

    Raises:
      TypeError: if `model` is no NNX module, or holds or is given what can't be hashed.
      ValueError: if the network can't be called so, an input is given by shape alone, it has no
        binary layer, or a layer is called where it can't be observed, as within a `shard_map`.

    Example:
      >>> import jax, ovsw_jax as ovsw
      >>> from flax import nnx
      >>> rngs = nnx.Rngs(0)
      >>> model = nnx.Sequential(
      ...     nnx.Linear(8, 16, rngs=rngs), nnx.relu, ovsw.nn.BinaryDense(16, 4, rngs=rngs)
      ... )
      >>> inspection = ovsw.inspect(model, jax.random.normal(jax.random.key(0), (32, 8)))
      >>> inspection.rows[0].name, inspection.rows[0].verdict
      ('layers/2', 'every input sign is +1, since no input is negative')
      >>> model.layers[1] = ovsw.nn.hardtanh
      >>> ovsw.inspect(model, jax.random.normal(jax.random.key(0), (32, 8))).rows[0].verdict
      'fine'

    Source: ours.
    """
    check_is_nnx(model, "ovsw.inspect", "Call ovsw.linen.inspect(module, variables, x).")
    check_seen(model, "ovsw.inspect")
    check_flag("evaluation", evaluation)
    call = call_with(inputs, named_inputs)
    check_has_values(call, "ovsw.inspect")
    graph, state = nnx.split(model, graph=True)
    if any(isinstance(x, jax.ShapeDtypeStruct) for x in jax.tree.leaves(state)):
        raise ValueError(
            f"ovsw.inspect runs the network, and {type(model).__name__} has shapes in place of "
            "weights, as nnx.eval_shape makes it: make it without, or load its weights first."
        )
    fixed = (tuple(call.arrays), call.rest, call.structure)
    check_hashable(type(model).__name__, (graph, fixed), "ovsw.inspect")
    return _inspected(graph, fixed, evaluation, state, list(call.arrays.values()))


@partial(jax.jit, static_argnums=(0, 1, 2))
def _inspected(
    graph: Any, fixed: Any, evaluation: bool, state: Any, arrays: Sequence[jax.Array]
) -> Inspection:
    names, rest, structure = fixed
    call = Call(dict(zip(names, arrays, strict=True)), rest, structure)
    network = nnx.merge(graph, state)
    nnx.pop(network, nnx.Intermediate)
    if evaluation:
        network.eval()
    else:
        network.train()
    traced = explained_trace(network, call, _observe)
    found = by_layer(observed(traced.program, [*traced.held, *arrays]))
    dtypes = _input_dtypes(traced)
    rows = [
        LayerInspection(
            name="/".join(map(str, path)),
            kind=type(layer).__name__,
            input_dtype=dtypes.get(path),
            learns_threshold=isinstance(getattr(layer, "input_sign", None), LearnedThresholdSign),
            measures=of_calls(found.get(number, []), _latent_size(layer)),
        )
        for number, (path, layer) in enumerate(traced.layers.items())
        if _is_binary(layer)
    ]
    if not rows:
        remedy = "Put one into it, such as ovsw.nn.BinaryConv, or convert it by ovsw.binarize."
        raise ValueError(no_binary_layer(type(network).__name__, remedy))
    return Inspection(tuple(rows))


def no_binary_layer(model: str, remedy: str) -> str:
    """The message about a network in which there is nothing to inspect."""
    return (
        f"{model} has no binary layer to inspect: none of its modules has an input_sign, a "
        f"kernel_sign or a {LATENT_KEY}. {remedy}"
    )


def _input_dtypes(traced: Trace) -> dict[Path, str]:
    """The dtype of the first array that each layer takes."""
    calls = [call for call in traced.calls() if call.inputs]
    return {call.layer: next(iter(call.inputs.values())).aval.dtype.name for call in calls[::-1]}


def _latent_size(layer: Any) -> int:
    leaves = jax.tree.leaves(getattr(layer, LATENT_KEY, None))
    return sum(x.size for x in leaves)


def check_has_values(call: Call, function: str) -> None:
    """Raises ValueError if an input of a call is a shape alone, or holds no sample."""
    for name, x in call.arrays.items():
        if isinstance(x, jax.ShapeDtypeStruct):
            raise ValueError(
                f"{function} runs the network, and input {name} is given by its shape "
                f"{x.shape} alone: give a batch of real samples, such as 32 images."
            )
        if x.ndim and not x.shape[0]:
            raise ValueError(
                f"{function} measures a batch, and input {name} of shape {x.shape} holds no "
                "sample: give at least one, such as 32 images."
            )


def check_hashable(model: str, fixed: Any, function: str) -> None:
    """Raises TypeError if a compiled function can't be found again by these values."""
    try:
        hash(fixed)
    except TypeError as error:
        raise TypeError(
            f"{function} compiles {model} once, but an attribute of it or an argument of its call "
            f"can't be hashed: {error}. Make it a tuple or another constant, as nnx.jit needs it."
        ) from error


def _observe(
    layer: Any, args: Sequence[Any], kwargs: Mapping[str, Any], y: Any
) -> Mapping[str, jax.Array]:
    """Measures of a call of a binary layer; nothing of other modules."""
    x = first_array((*args, *kwargs.values()))
    if not _is_binary(layer) or x is None or not isinstance(y, jax.Array):
        return {}
    return measure(_signed_call(layer, x, y))


def _signed_call(layer: Any, x: jax.Array, y: jax.Array) -> SignedCall:
    input_sign = callable_or_none(getattr(layer, "input_sign", None))
    kernel_sign = callable_or_none(getattr(layer, "kernel_sign", None))
    latent = getattr(layer, LATENT_KEY, None)
    latent = latent[...] if isinstance(latent, nnx.Variable) else latent
    if isinstance(layer, BinaryLinearGeneral):
        x = features_last(x, layer.in_features, layer.axis)
        filters = math.prod(layer.out_features)
        y = y.reshape(*x.shape[:-1], filters)
        latent = None if latent is None else latent.reshape(-1, filters)
    if isinstance(layer, BinaryConv | BinaryDense | BinaryLinearGeneral):
        window = layer.window.kernel_size if isinstance(layer, BinaryConv) else ()
        axes = len(window) + 1
        before = before_sign(
            x, axes, normalize=layer.normalize_input, training=not layer.deterministic
        )
    else:
        axes, before = max(0, x.ndim - 1), x
    return SignedCall(x, before, input_sign, latent, kernel_sign, y, x.ndim - axes)


def first_array(values: Sequence[Any]) -> jax.Array | None:
    """The first array among the arguments of a call."""
    leaves = jax.tree.leaves(list(values))
    return next((x for x in leaves if isinstance(x, jax.Array) and _is_real(x)), None)


def _is_real(x: jax.Array) -> bool:
    return not jnp.issubdtype(x.dtype, jax.dtypes.extended)


def callable_or_none(sign: Any) -> Any:
    """A sign, or None of an attribute that is something else."""
    return sign if callable(sign) else None


def _is_binary(module: Any) -> bool:
    names = ("input_sign", "kernel_sign", LATENT_KEY)
    return any(getattr(module, name, None) is not None for name in names)
