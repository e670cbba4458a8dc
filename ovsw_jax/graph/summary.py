"""What a network holds and computes: bits, bytes and multiply-accumulates of each layer."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from ovsw_jax.graph.call import call_with
from ovsw_jax.graph.evaluation import evaluation_copy
from ovsw_jax.graph.module_tree import Path, check_is_nnx, check_seen, walk
from ovsw_jax.graph.products import macs, operand_dtypes
from ovsw_jax.graph.summary_table import InputSummary, LayerSummary, ModelSummary
from ovsw_jax.graph.trace import Branches, Equation, Trace, explained_trace
from ovsw_jax.latent import LATENT_KEY
from ovsw_jax.nn._checks import as_dtype
from ovsw_jax.nn.layers import BinaryConv, BinaryDense
from ovsw_jax.nn.linear_general import BinaryLinearGeneral
from ovsw_jax.nn.sign_kinds import carries_factor


def summary(
    model: nnx.Module, *inputs: Any, dtype: jax.typing.DTypeLike = jnp.float32, **named_inputs: Any
) -> ModelSummary:
    """Counts parameters, memory and multiply-accumulates of a Flax NNX network, layer by layer.

    The network is traced in evaluation mode and not run; the model does not change. All modules
    count, the user's own included: a convolution or matrix product belongs to the innermost module
    whose public method makes it. The products of a layer are binary if it has both an `input_sign`
    and a `kernel_sign`, as `ovsw.nn.BinaryConv` has by default; parameters are 1-bit if their name
    is `latent_kernel`.

    A multiply-accumulate is one product added to a sum. Only convolutions and matrix products
    count: elements of the output times weights per filter, zeros of the padding included. A layer
    that is called twice counts twice there, and once in parameters and memory. The body of a scan
    counts once per step, that of a `while_loop` once, and of a conditional the costlier branch.
    Products inside a Pallas kernel are not counted.

    Memory is what must be stored to run the network: parameters, batch statistics, Variables of
    your own kinds, and arrays in no Variable. Random state, caches, metrics, optimizer state and
    intermediate values (`nnx.Intermediate`) are not included.

    Args:
      model: the network; may be abstract, as `nnx.eval_shape` makes it.
      *inputs: positional arguments of the call. A shape, batch axis first, stands for one array;
        it can be given as `input_shape=`. Other inputs are trees of arrays or
        `jax.ShapeDtypeStruct`s, as the network takes them, with their own dtypes.
      dtype: of the inputs that are given by shape.
      **named_inputs: keyword arguments of the call. Arrays and `jax.ShapeDtypeStruct`s in them are
        inputs; everything else, such as a flag or a shape, is passed on unchanged.

    Returns:
      A frozen dataclass with `rows`, one per layer, and `total`; see their fields for units. `str`
      of it is a table, `to_markdown()` another, and `to_dict()` has the exact numbers.

    Raises:
      TypeError: if `model` is not an NNX module, or `dtype` not a dtype.
      ValueError: if an input is neither a shape nor made of arrays, or the model doesn't take it;
        or if a function in an attribute, such as a method of a layer, holds a module.

    >>> import ovsw_jax as ovsw
    >>> model = nnx.eval_shape(lambda: ovsw.models.SmallResNet(rngs=nnx.Rngs(0)))
    >>> counted = ovsw.summary(model, (1, 32, 32, 3))
    >>> counted.rows[2].name, counted.rows[2].binary_macs  # 32 * 32 outputs, 16 * 16 filters
    ('layer1/0/conv1', 2359296)
    >>> counted.total.binary_params, counted.total.real_params
    (18432, 1050)
    >>> attention = nnx.MultiHeadAttention(2, 8, rngs=nnx.Rngs(0))
    >>> counted = ovsw.summary(attention, (1, 5, 8), (1, 7, 8), decode=False)
    >>> counted.total.float_macs  # 5 queries, 7 keys and values, 5 results
    2096

    Source: the arithmetic of the tables in papers on binary networks, as in Liu et al. 2018
    (Bi-Real Net); `total.operations` is their sum of both kinds.
    """
    check_is_nnx(model, "ovsw.summary", "For linen there is flax.linen.tabulate.")
    check_seen(model, "ovsw.summary")
    if "input_shape" in named_inputs:
        inputs = (named_inputs.pop("input_shape"), *inputs)
    call = call_with(inputs, named_inputs, as_dtype("dtype", dtype))
    network = evaluation_copy(model)
    traced = explained_trace(network, call)
    layers = {path: _Layer(path, module) for path, module in traced.layers.items()}
    _hold(network, layers)
    _count(traced, layers)
    rows = [layer.row() for layer in layers.values()]
    arrays = [InputSummary(n, x.shape, x.dtype.name) for n, x in call.abstract.items()]
    return ModelSummary(
        input_shape=arrays[0].shape,
        input_dtype=arrays[0].dtype,
        rows=tuple(row for row in rows if row.training_bytes or row.dtype),
        total=_total(rows),
        inputs=tuple(arrays),
    )


# What running a network makes, or what only training needs.
_NOT_STORED = (nnx.Intermediate, nnx.RngState, nnx.Cache, nnx.metrics.MetricState, nnx.OptState)


class _Layer:
    """What is counted for one module, without the modules in it."""

    def __init__(self, path: Path, module: nnx.Module):
        self.path, self.module, self.kind = path, module, type(module).__name__
        self.latent: list[Any] = []
        self.real_params = self.other_bytes = 0
        self.output_shapes: tuple[tuple[int, ...], ...] | None = None
        self.macs = {"binary": 0, "float": 0}
        self.dtypes: dict[str, None] = {}
        signs = [getattr(module, name, None) for name in ("input_sign", "kernel_sign")]
        self.products = "float" if None in signs else "binary"

    def hold(self, variable: Any, path: Path) -> None:
        """Counts a Variable, or an array in no Variable, as this layer's."""
        if isinstance(variable, _NOT_STORED):
            return
        held = variable.get_raw_value() if isinstance(variable, nnx.Variable) else variable
        arrays = [a for a in jax.tree.leaves(held) if hasattr(a, "dtype")]
        if LATENT_KEY in path and isinstance(variable, nnx.Param):
            self.latent += arrays
            return
        self.other_bytes += sum(map(_bytes, arrays))
        if isinstance(variable, nnx.Param):
            self.real_params += sum(math.prod(a.shape) for a in arrays)

    def row(self) -> LayerSummary:
        bits = sum(math.prod(a.shape) for a in self.latent)
        return LayerSummary(
            name="/".join(map(str, self.path)),
            kind=self.kind,
            output_shapes=self.output_shapes or (),
            binary_params=bits,
            real_params=self.real_params,
            stored_bytes=-(-bits // 8) + self.other_bytes + self._factor_bytes(),
            training_bytes=self.other_bytes + sum(map(_bytes, self.latent)),
            binary_macs=self.macs["binary"],
            float_macs=self.macs["float"],
            dtype=", ".join(self.dtypes) or None,
        )

    def _factor_bytes(self) -> int:
        """Memory of one factor per filter, where it is computed from latent weights."""
        layer = self.module
        if not isinstance(layer, BinaryConv | BinaryDense | BinaryLinearGeneral):
            return 0
        if layer.scale in (None, "learned") and not carries_factor(layer.kernel_sign):
            return 0
        if isinstance(layer, BinaryLinearGeneral):
            fan_in = math.prod(layer.in_features)
        elif isinstance(layer, BinaryConv):
            window = layer.window
            fan_in = layer.in_features // window.feature_group_count * math.prod(window.kernel_size)
        else:
            fan_in = layer.in_features
        return sum(_bytes(latent) // fan_in for latent in self.latent)


def _hold(network: nnx.Module, layers: Mapping[Path, _Layer]) -> None:
    """Gives each layer the arrays that it holds, those in its containers included."""
    for path, node in walk(network):
        if not isinstance(node, nnx.Module):
            owner = path
            while owner not in layers:
                owner = owner[:-1]
            layers[owner].hold(node, path)


def _count(traced: Trace, layers: Mapping[Path, _Layer]) -> None:
    """Counts what the layers compute, and notes what the first call of each returns."""
    for call in traced.calls(_costliest):
        if layers[call.layer].output_shapes is None:
            layers[call.layer].output_shapes = tuple(x.aval.shape for x in call.outputs.values())
    for equation in traced.equations(_costliest):
        multiplied = macs(equation.operation)
        if multiplied and equation.layer is not None:
            layer = layers[equation.layer]
            layer.macs[layer.products] += multiplied * equation.times
            layer.dtypes[operand_dtypes(equation.operation)] = None


def _costliest(branches: Branches) -> Iterable[Equation]:
    return max(branches, key=lambda branch: sum(macs(e.operation) * e.times for e in branch))


def _total(rows: Sequence[LayerSummary]) -> LayerSummary:
    dtypes = [name for row in rows if row.dtype for name in row.dtype.split(", ")]
    return LayerSummary(
        name="total",
        kind=rows[0].kind,
        output_shapes=rows[0].output_shapes,
        binary_params=sum(row.binary_params for row in rows),
        real_params=sum(row.real_params for row in rows),
        stored_bytes=sum(row.stored_bytes for row in rows),
        training_bytes=sum(row.training_bytes for row in rows),
        binary_macs=sum(row.binary_macs for row in rows),
        float_macs=sum(row.float_macs for row in rows),
        dtype=", ".join(dict.fromkeys(dtypes)) or None,
    )


def _bytes(array: Any) -> int:
    return math.prod(array.shape) * array.dtype.itemsize
