"""An ordinary network made binary: some layers replaced, everything else kept."""

import functools
import inspect
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx

from ovsw_jax.graph.binarizable import check_layers, unlike
from ovsw_jax.graph.module_tree import (
    Model,
    Path,
    at,
    check_is_nnx,
    check_seen,
    modules,
    with_modules,
)
from ovsw_jax.graph.positive import warn_of_one_sign
from ovsw_jax.graph.where import Refinement, Where
from ovsw_jax.nn.layers import BinaryConv, BinaryDense
from ovsw_jax.nn.linear_general import BinaryLinearGeneral
from ovsw_jax.nn.sharpening import SharpeningSign

_OF_THE_LAYER = {"self", "in_features", "out_features", "use_bias", "dtype", "param_dtype"}
_OF_ITS_START = {"kernel_init", "bias_init", "rngs"}


def binarize(
    model: Model,
    *,
    where: Where | None = None,
    input_shape: Sequence[int] | None = None,
    **options: Any,
) -> Model:
    """Makes a binary network of an ordinary Flax NNX one.

    Every `nnx.Conv` and `nnx.Linear` except the first and the last becomes an `ovsw.nn.BinaryConv`
    or `BinaryDense`. First and last are meant in the order in which layers were assigned to their
    modules, which is usually that of the forward pass. Names of modules, shapes, strides, padding,
    dilation, groups, biases and dtypes stay; a kernel becomes the initial latent kernel. Modules
    and weights that were shared stay shared. The new layers are in evaluation mode if all of the
    model's batch norms and dropouts are. `nnx.ConvTranspose`, `nnx.LinearGeneral` and other layers
    stay as they are, and don't count as the first or the last. `ovsw.binarize_report` lists what
    would become of each layer, and why.

    A layer whose inputs are never negative has signs of +1 alone, and the network learns nothing.
    It is warned of, where it is known: in an `nnx.Sequential` by the function in front of the
    layer, and with `input_shape` in any network, which is then run once.

    Two things change beside the signs: a bias is added before the factor, so it is multiplied by
    it; and `precision` has no effect on products of signs.

    Args:
      model: the network, which does not change; the new one shares no arrays with it. May be
        abstract, as `nnx.eval_shape` makes it.
      where: which layers become binary: a function of the path, a tuple of attribute names and
        indices, and of the layer. It is called once for every `nnx.Conv`, `nnx.Linear` and
        `nnx.LinearGeneral`; one of these, such as a projection of `nnx.MultiHeadAttention`, becomes
        an `ovsw.nn.BinaryLinearGeneral`. `ovsw.skip_depthwise`, `ovsw.skip_squeeze_excite` and
        `ovsw.skip_narrow` refine the default, and are combined by `&`, also with functions.
      input_shape: shape of a batch, for a network that takes one float32 array: the binary network
        is run on normal numbers of that shape, as by `ovsw.inspect`.
      **options: `scale`, `input_sign`, `kernel_sign` and `normalize_input` of the new layers. A
        sign with parameters is given by its class, as `ovsw.nn.LearnedThresholdSign`, or a
        `functools.partial` of it: each layer gets its own, made with `in_features` and `rngs`. An
        `ovsw.nn.SharpeningSign` is given as an object, and all layers share it.

    Returns:
      The binary network, of the class of `model`.

    Warns:
      UserWarning: if all input signs of a layer are known to be the same; names layer and remedy.

    Raises:
      TypeError: if `model` is not an NNX module, an option is unknown, or `where` is not a
        function or returns no bool.
      ValueError: if no layer is selected, or one that no binary layer can replace; or if a
        function in an attribute, such as a method of a layer, holds a module; or if the network
        can't be run on `input_shape`.

    >>> import optax, ovsw_jax as ovsw
    >>> rngs = nnx.Rngs(0)
    >>> model = nnx.Sequential(
    ...     nnx.Linear(4, 8, rngs=rngs),
    ...     nnx.BatchNorm(8, rngs=rngs),
    ...     nnx.Linear(8, 8, rngs=rngs),
    ...     nnx.Linear(8, 2, rngs=rngs),
    ... )
    >>> model = ovsw.binarize(model)
    >>> [type(layer).__name__ for layer in model.layers]
    ['Linear', 'BatchNorm', 'BinaryDense', 'Linear']
    >>> optimizer = nnx.Optimizer(model, ovsw.ovsw_sgd(0.1), wrt=nnx.Param)
    >>> sorted(ovsw.flip_metrics(optimizer.opt_state))
    ['layers/2', 'total']

    Source: ours; which layers stay real as in the networks of OvSW (Xiang et al., ECCV 2024).
    """
    check_arguments(model, where, options, "ovsw.binarize")
    layers, selected = candidates(model, where)
    if not selected:
        raise ValueError(_nothing_selected(model, layers, where))
    check_layers(model, selected, options)
    network = _copy(model)
    in_evaluation = _in_evaluation(model)
    binary = {}
    for path, _ in selected:
        binary[path] = _binary_layer(path, at(network, path), options)
        if in_evaluation:
            binary[path].eval()
    made = with_modules(network, binary)
    warn_of_one_sign(made, list(binary), input_shape)
    return made


def check_arguments(
    model: nnx.Module, where: Where | None, options: Mapping[str, Any], function: str
) -> None:
    """Raises TypeError or ValueError as `binarize`; `function` is the public name of the caller."""
    check_is_nnx(model, function, "Build it of ovsw.linen.BinaryConv and ovsw.linen.BinaryDense.")
    check_seen(model, function)
    if where is not None and not callable(where):
        raise TypeError(
            f"where={where!r} can't be called: give a function of path and layer, such as "
            "lambda path, layer: path in [('body',)]."
        )
    _check_options(options)


Layers = list[tuple[Path, nnx.Module]]


def candidates(model: nnx.Module, where: Where | None) -> tuple[Layers, Layers]:
    """The layers that `where` is asked about, and those that are to become binary.

    Raises:
      TypeError: if `where` returns no bool.
    """
    by_default = where is None or isinstance(where, Refinement)
    kinds: Any = nnx.Conv | nnx.Linear if by_default else nnx.Conv | nnx.Linear | nnx.LinearGeneral
    layers = [(path, module) for path, module in modules(model) if isinstance(module, kinds)]
    inner = layers[1:-1] if by_default else layers
    if where is None:
        return layers, inner
    return layers, [(path, layer) for path, layer in inner if _asked(where, path, layer)]


def _check_options(options: Mapping[str, Any]) -> None:
    known = set(inspect.signature(BinaryDense.__init__).parameters) - _OF_THE_LAYER - _OF_ITS_START
    for name, value in options.items():
        if name not in known:
            raise TypeError(
                f"{name}= is not an option of ovsw.binarize, which takes "
                f"{', '.join(sorted(known))}. Everything else stays as it is in the model."
            )
        made = value.func if isinstance(value, functools.partial) else value
        if isinstance(made, type) and issubclass(made, SharpeningSign):
            raise ValueError(
                f"{name}={made.__name__} is a class: make an object of it, such as "
                f"{name}=ovsw.nn.{made.__name__}(0.1). All layers share it, so that one assignment "
                "to its sharpness reaches them all."
            )
        if isinstance(value, nnx.Module) and not isinstance(value, SharpeningSign):
            raise ValueError(
                f"{name}= is one {type(value).__name__}, whose parameters all layers would share. "
                f"Give its class, {name}={type(value).__name__}: each layer then makes its own."
            )


def _asked(where: Where, path: Path, layer: nnx.Module) -> bool:
    answer = where(path, layer)
    if not isinstance(answer, bool | np.bool_):
        raise TypeError(
            f"where({path!r}, {type(layer).__name__}) returned {answer!r}, which is not a bool. "
            "It must return True for a layer to make binary and False for one to keep."
        )
    return bool(answer)


def _nothing_selected(
    model: nnx.Module, layers: Sequence[tuple[Path, nnx.Module]], where: Where | None
) -> str:
    name = type(model).__name__
    if not layers:
        kinds = sorted({type(module).__name__ for _, module in modules(model)})
        return (
            f"{name} has no nnx.Conv or nnx.Linear to make binary: its modules are of the classes "
            f"{', '.join(kinds)}. Put ovsw.nn.BinaryConv or BinaryDense into it by hand."
        )
    names = ["/".join(map(str, path)) or "the model" for path, _ in layers]
    shown = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
    why = "the first and the last stay real" if where is None else "where= returned False for each"
    if isinstance(where, Refinement):
        why = f"the first and the last stay real, as do all others by where={where!r}"
    return (
        f"nothing in {name} would become binary: it has {len(names)} nnx.Conv or nnx.Linear "
        f"({shown}), and {why}. Give where=, a function of path and layer that is True for some."
    )


def _copy(model: Model) -> Model:
    """A copy with arrays of its own, so that a donated one takes nothing from the other."""
    graph, state = nnx.split(model, graph=True)
    state = jax.tree.map(lambda x: x.copy() if isinstance(x, jax.Array | np.ndarray) else x, state)
    return nnx.merge(graph, state)


def _in_evaluation(model: nnx.Module) -> bool:
    """Whether all that knows of training and evaluation is set to evaluation."""
    names = ("deterministic", "use_running_average")
    switches = [getattr(m, n) for _, m in modules(model) for n in names if hasattr(m, n)]
    return bool(switches) and all(switches)


BinaryLayer = BinaryConv | BinaryDense | BinaryLinearGeneral


def _binary_layer(path: Path, layer: Any, options: Mapping[str, Any]) -> BinaryLayer:
    """The binary layer that replaces `layer`, with the same Variables."""
    make = functools.partial(_make, layer, options)
    kernel = layer.kernel.get_value()
    bias = None if layer.bias is None else layer.bias.get_value()
    try:
        if isinstance(kernel, jax.ShapeDtypeStruct):
            binary = nnx.eval_shape(make, kernel, bias)
            # eval_shape makes abstract copies, but a shared sign must be the object itself.
            for name, value in options.items():
                if isinstance(value, SharpeningSign):
                    setattr(binary, name, value)
        else:
            binary = make(kernel, bias)
    except ValueError as error:
        raise ValueError(unlike(path, layer, str(error))) from error
    if binary.kernel_sign is None:
        binary.kernel = layer.kernel
    else:
        binary.latent_kernel = layer.kernel
    if bias is not None:
        binary.bias = layer.bias
    return binary


def _make(
    layer: Any, options: Mapping[str, Any], kernel: jax.Array, bias: jax.Array | None
) -> BinaryLayer:
    rngs = nnx.Rngs(0)  # required, but unused: the layer gets its initial values from `layer`
    arguments: dict[str, Any] = {
        **{name: _own(value, layer, rngs) for name, value in options.items()},
        "use_bias": bias is not None,
        "dtype": layer.dtype,
        "param_dtype": layer.param_dtype,
        "kernel_init": lambda *_: kernel,
        "bias_init": lambda *_: bias,
        "rngs": rngs,
    }
    if isinstance(layer, nnx.LinearGeneral):
        filters = math.prod(layer.out_features)
        arguments["kernel_init"] = lambda *_: kernel.reshape(-1, filters)
        arguments["bias_init"] = lambda *_: None if bias is None else bias.ravel()
        return BinaryLinearGeneral(
            layer.in_features, layer.out_features, axis=layer.axis, **arguments
        )
    if isinstance(layer, nnx.Linear):
        return BinaryDense(layer.in_features, layer.out_features, **arguments)
    padding = layer.padding
    return BinaryConv(
        layer.in_features,
        layer.out_features,
        layer.kernel_size,
        strides=1 if layer.strides is None else layer.strides,
        padding=padding.upper() if isinstance(padding, str) else padding,
        kernel_dilation=1 if layer.kernel_dilation is None else layer.kernel_dilation,
        feature_group_count=layer.feature_group_count,
        **arguments,
    )


def _own(option: Any, layer: Any, rngs: nnx.Rngs) -> Any:
    """A new module for the layer, if the option is a class of modules; else the option."""
    made = option.func if isinstance(option, functools.partial) else option
    if not (isinstance(made, type) and issubclass(made, nnx.Module)):
        return option
    try:
        features = layer.in_features
        inputs = math.prod(features) if isinstance(features, tuple) else features
        return option(inputs, rngs=rngs)
    except TypeError as error:
        raise TypeError(
            f"{made.__name__}(in_features, rngs=rngs), as each layer makes its own sign, failed: "
            f"{error}. Give a class that takes these two, such as ovsw.nn.LearnedThresholdSign, or "
            "a functools.partial with its other arguments."
        ) from error
