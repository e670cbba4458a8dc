"""What a network holds and computes: bits, bytes and multiply-accumulates of each layer."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from ovsw_jax.arguments import as_dtype
from ovsw_jax.graph.module_tree import Path, check_is_nnx, walk
from ovsw_jax.graph.products import equations, macs, operand_dtypes
from ovsw_jax.graph.summary_table import LayerSummary, ModelSummary
from ovsw_jax.graph.traced_layers import layer_of, output_of, traced
from ovsw_jax.latent import LATENT_KEY
from ovsw_jax.nn.filter_signs import carries_factor
from ovsw_jax.nn.layers import BinaryConv, BinaryDense


def summary(
    model: nnx.Module, input_shape: Sequence[int], *, dtype: jax.typing.DTypeLike = jnp.float32
) -> ModelSummary:
    """Counts parameters, memory and multiply-accumulates of a Flax NNX network, layer by layer.

    Nothing is computed, only traced, in evaluation mode; the model stays as it is. All modules
    count, the user's own included: a convolution or matrix product belongs to the innermost module
    whose public method makes it. The products of a layer are binary if it has both an `input_sign`
    and a `kernel_sign`, as `ovsw.nn.BinaryConv` has unless told otherwise; parameters are 1-bit if
    they are called `latent_kernel`.

    A multiply-accumulate is one product added to a sum. Only convolutions and matrix products
    count: elements of the output times weights a filter, zeros of the padding included. A layer
    called twice counts twice there, and once in parameters and memory. The body of a scan counts
    once a step, that of a `while_loop` once, and of a conditional the costlier branch; what a
    Pallas kernel does is not seen. Random state has no part in memory.

    Args:
      model: the network; may be abstract, as `nnx.eval_shape` makes it.
      input_shape: shape of its input, batch axis first.
      dtype: of its input.

    Returns:
      A frozen dataclass with `rows`, a layer each, and `total`; see their fields for units. `str`
      of it is a table, `to_markdown()` another, and `to_dict()` has the exact numbers.

    Raises:
      TypeError: if `model` is no NNX module, or `dtype` no dtype.
      ValueError: if `input_shape` is no shape, or the model doesn't take it.

    >>> import ovsw_jax as ovsw
    >>> model = nnx.eval_shape(lambda: ovsw.models.SmallResNet(rngs=nnx.Rngs(0)))
    >>> counted = ovsw.summary(model, (1, 32, 32, 3))
    >>> counted.rows[2].name, counted.rows[2].binary_macs  # 32 * 32 outputs, 16 * 16 filters
    ('layer1/0/conv1', 2359296)
    >>> counted.total.binary_params, counted.total.real_params
    (18432, 1050)

    Source: the arithmetic of the tables in papers on binary networks, as in Liu et al. 2018
    (Bi-Real Net); `total.operations` is their sum of both kinds.
    """
    check_is_nnx(model, "ovsw.summary", "For linen there is flax.linen.tabulate.")
    shape = _checked_shape(input_shape)
    x = jax.ShapeDtypeStruct(shape, jax.dtypes.canonicalize_dtype(as_dtype("dtype", dtype)))
    network = nnx.clone(model, graph=True)
    network.eval()
    layers = _layers(network)
    program = _program(network, layers, x, type(model).__name__)
    for operation, scope, times in equations(program):
        _count(operation, layer_of(scope), times, layers)
    rows = [layer.row() for layer in layers]
    return ModelSummary(
        input_shape=shape,
        input_dtype=x.dtype.name,
        rows=tuple(row for row in rows if row.training_bytes or row.dtype),
        total=_total(rows),
    )


class _Layer:
    """What is counted of one module, itself without the modules in it."""

    def __init__(self, path: Path, module: nnx.Module):
        self.path, self.module, self.kind = path, module, type(module).__name__
        self.latent: list[Any] = []
        self.real_params = self.other_bytes = 0
        self.outputs: dict[int, tuple[int, ...]] = {}
        self.macs = {"binary": 0, "float": 0}
        self.dtypes: dict[str, None] = {}
        signs = [getattr(module, name, None) for name in ("input_sign", "kernel_sign")]
        self.products = "float" if None in signs else "binary"

    def hold(self, variable: nnx.Variable[Any], path: Path) -> None:
        """Counts a Variable as this layer's."""
        arrays = [a for a in jax.tree.leaves(variable.get_raw_value()) if hasattr(a, "dtype")]
        if isinstance(variable, nnx.RngState):
            return
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
            output_shapes=tuple(self.outputs[i] for i in sorted(self.outputs)),
            binary_params=bits,
            real_params=self.real_params,
            stored_bytes=-(-bits // 8) + self.other_bytes + self._factor_bytes(),
            training_bytes=self.other_bytes + sum(map(_bytes, self.latent)),
            binary_macs=self.macs["binary"],
            float_macs=self.macs["float"],
            dtype=", ".join(self.dtypes) or None,
        )

    def _factor_bytes(self) -> int:
        """Memory of one factor a filter, where it is computed from latent weights."""
        layer = self.module
        if not isinstance(layer, BinaryConv | BinaryDense):
            return 0
        if layer.scale in (None, "learned") and not carries_factor(layer.kernel_sign):
            return 0
        fan_in = layer.in_features
        if isinstance(layer, BinaryConv):
            window = layer.window
            fan_in = fan_in // window.feature_group_count * math.prod(window.kernel_size)
        return sum(_bytes(latent) // fan_in for latent in self.latent)


def _layers(network: nnx.Module) -> list[_Layer]:
    """The modules of a network, with the Variables that each holds; containers are no layers."""
    layers: dict[Path, _Layer] = {}
    for path, node in walk(network):
        if not isinstance(node, nnx.Variable):
            if not isinstance(node, nnx.List | nnx.Dict) or not path:
                layers[path] = _Layer(path, node)
        else:
            owner = path
            while owner not in layers:
                owner = owner[:-1]
            layers[owner].hold(node, path)
    return list(layers.values())


def _count(operation: Any, number: int | None, times: int, layers: Sequence[_Layer]) -> None:
    output = output_of(operation)
    if output is not None:
        layers[output[0]].outputs.setdefault(output[1], operation.outvars[0].aval.shape)
    multiplied = macs(operation)
    if multiplied and number is not None:
        layer = layers[number]
        layer.macs[layer.products] += multiplied * times
        layer.dtypes[operand_dtypes(operation)] = None


def _program(
    network: nnx.Module, layers: Sequence[_Layer], x: jax.ShapeDtypeStruct, name: str
) -> Any:
    try:
        return traced(network, [layer.module for layer in layers], x)
    except Exception as error:
        raise ValueError(
            f"{name} can't be called with one {x.dtype.name} array of shape {x.shape}: "
            f"{type(error).__name__}: {error}\nGive the input_shape of a whole batch, such as "
            "(1, 224, 224, 3), and the dtype that the network takes."
        ) from error


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


def _checked_shape(shape: object) -> tuple[int, ...]:
    sizes: tuple[Any, ...] = ()
    # An array without axes calls itself iterable.
    scalar = isinstance(shape, str) or getattr(shape, "shape", None) == ()
    if isinstance(shape, Iterable) and not scalar:
        sizes = tuple(shape)
    counts = [isinstance(n, int | np.integer) and not isinstance(n, bool) for n in sizes]
    if not sizes or not all(counts) or any(n < 1 for n in sizes):
        raise ValueError(
            f"input_shape={shape!r} must be a sequence of positive integers, the batch axis first: "
            "for one colour image of 32x32 pixels, (1, 32, 32, 3)."
        )
    return tuple(map(int, sizes))
