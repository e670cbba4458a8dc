"""A graph as an ONNX model: standard operators of opset 18, weights packed in its file.

ONNX has no signs and no bits. Signs are float32 numbers here, sums of them exact, and a packed
tensor is unpacked by a few nodes that depend on no input, so that a runtime computes them once.
ONNX convolves with channels first. Results between convolutions stay so, and are transposed only
where their order matters: a result has one form at first, and the other when it is asked for.
"""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ovsw_jax.deploy.builder import attributes_of
from ovsw_jax.deploy.graph import Graph, Node, Ref, Signs
from ovsw_jax.deploy.network import FrozenNetwork

OPSET, IR_VERSION = 18, 8
LAST, FIRST = "last", "first"  # where the channels are


def save_onnx(network: FrozenNetwork, path: str | os.PathLike[str]) -> None:
    """Writes a network as an ONNX file."""
    Path(path).write_bytes(onnx_model(network).SerializeToString())


def onnx_model(network: FrozenNetwork) -> Any:
    """The `onnx.ModelProto` of a network.

    Raises:
      ImportError: if the package onnx is missing.
    """
    try:
        import onnx
    except ImportError as error:
        raise ImportError(
            "to_onnx needs the package onnx: pip install 'ovsw-jax[deploy]'."
        ) from error
    writer = _Writer(onnx.helper, onnx.numpy_helper, network.graph)
    graph = writer.graph(network)
    model = onnx.helper.make_model(
        graph,
        producer_name="ovsw_jax",
        producer_version=network.source.get("ovsw_jax", ""),
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )
    onnx.helper.set_model_props(model, _about(network))
    return model


def _about(network: FrozenNetwork) -> dict[str, str]:
    about = {"source": json.dumps(network.source)}
    if network.classes is not None:
        about["classes"] = json.dumps(network.classes)
    if (given := network.preprocessing) is not None:
        about["preprocessing"] = json.dumps({"mean": given.mean, "std": given.std})
    return about


class _Writer:
    """Nodes and initializers so far, and the names of results, by number and form."""

    def __init__(self, helper: Any, numpy_helper: Any, graph: Graph):
        self.helper, self.numpy_helper, self.frozen = helper, numpy_helper, graph
        self.nodes: list[Any] = []
        self.initializers: dict[Any, Any] = {}
        self.names: dict[int, dict[str, str]] = {0: {LAST: "images"}}
        self.weights: dict[Any, str] = {}
        self.node = Node("", (), {}, graph.input)

    def graph(self, network: FrozenNetwork) -> Any:
        """The `GraphProto`."""
        for number, node in enumerate(self.frozen.nodes, start=1):
            self.node = node
            form, name = _OPERATIONS[node.op](self, attributes_of(node))
            self.names[number] = {form: name}
        name = self.result(self.frozen.output, LAST)
        self.nodes.append(self.helper.make_node("Identity", [name], ["output"]))
        float32 = 1  # onnx.TensorProto.FLOAT
        images = self.helper.make_tensor_value_info(
            "images", float32, ["batch", *network.input_shape]
        )
        output = self.helper.make_tensor_value_info(
            "output", float32, ["batch", *network.output_shape]
        )
        values = list(self.initializers.values())
        return self.helper.make_graph(self.nodes, "frozen", [images], [output], values)

    def emit(self, op: str, *inputs: str, **attributes: Any) -> str:
        """Adds a node; gives the name of its result."""
        name = f"r{len(self.nodes)}"
        self.nodes.append(self.helper.make_node(op, inputs, [name], **attributes))
        return name

    def constant(self, array: Any) -> str:
        """The name of an initializer."""
        array = np.asarray(array)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self.initializers:
            name = f"c{len(self.initializers)}"
            self.initializers[key] = self.numpy_helper.from_array(array, name)
        return str(self.initializers[key].name)

    def integers(self, *numbers: int) -> str:
        """A list of integers, such as a shape."""
        return self.constant(np.asarray(numbers, np.int64))

    def result(self, number: int, form: str) -> str:
        """The name of a result in a form."""
        names = self.names[number]
        if form not in names:
            rank = len(self.frozen.type_of(number).shape) + 1
            last = [0, *range(2, rank), 1]
            first = [0, rank - 1, *range(1, rank - 1)]
            (name,) = names.values()
            order = last if form == LAST else first
            names[form] = self.emit("Transpose", name, perm=order)
        return names[form]

    def form(self) -> str:
        """The form in which to compute the node: that of the first result that it takes."""
        results = [ref for ref in self.node.inputs if isinstance(ref, int)]
        return next(iter(self.names[results[0]]))

    def operand(self, place: int, form: str) -> str:
        """An input of an elementwise operation: a result, or a constant of the same rank."""
        ref: Ref = self.node.inputs[place]
        if isinstance(ref, int):
            return self.result(ref, form)
        if isinstance(ref, float):
            return self.constant(np.float32(ref))
        array = self.frozen.tensors[ref]
        return self.of_channels(array if isinstance(array, np.ndarray) else array.values(), form)

    def of_channels(self, array: np.ndarray, form: str) -> str:
        """A constant that repeats over the batch, channels last, in a form."""
        if form == FIRST and array.ndim:
            rank = len(self.node.type.shape)
            array = np.moveaxis(array.reshape((1,) * (rank - array.ndim) + array.shape), -1, 0)
        return self.constant(array)

    def unpacked(self, tensor: Signs) -> str:
        """Signs as float32: each bit alone, then +1 or -1."""
        size = int(np.prod(tensor.shape))
        masks = self.constant(np.left_shift(1, np.arange(8)).astype(np.uint8))
        bits = self.emit("BitwiseAnd", self.constant(tensor.bits[:, None]), masks)
        signs = self.from_bools(self.emit("Cast", bits, to=9))  # onnx.TensorProto.BOOL
        if size % 8:
            signs = self.emit("Reshape", signs, self.integers(-1))
            signs = self.emit("Slice", signs, self.integers(0), self.integers(size))
        return self.emit("Reshape", signs, self.integers(*tensor.shape))

    def from_bools(self, name: str) -> str:
        """+1 where true, else -1."""
        one = self.constant(np.float32(1))
        return self.emit("Where", name, one, self.constant(np.float32(-1)))

    def kernel(self, order: Sequence[int]) -> str:
        """Weights with their axes in an order, each unpacked once."""
        name = str(self.node.inputs[1])
        key = (name, tuple(order))
        if key not in self.weights:
            tensor = self.frozen.tensors[name]
            if isinstance(tensor, Signs):
                self.weights[key] = self.emit("Transpose", self.unpacked(tensor), perm=order)
            else:
                self.weights[key] = self.constant(np.ascontiguousarray(tensor.transpose(order)))
        return self.weights[key]


_Made = tuple[str, str]  # form and name of a result
_Attributes = dict[str, Any]
_Operation = Callable[[_Writer, _Attributes], _Made]


def _number(w: _Writer) -> int:
    return int(w.node.inputs[0])


def _windows(a: _Attributes, size: Sequence[int]) -> _Attributes:
    axes = len(size)
    pads = a["padding"] or ((0, 0),) * axes
    return {
        "kernel_shape": list(size),
        "strides": list(a["strides"] or (1,) * axes),
        "pads": [*(low for low, _ in pads), *(high for _, high in pads)],
    }


def _conv(w: _Writer, a: _Attributes) -> _Made:
    shape = w.frozen.type_of(w.node.inputs[1]).shape
    axes = len(shape)
    kernel = w.kernel([0, axes - 1, *range(1, axes - 1)])
    dilations = list(a["dilation"] or (1,) * (axes - 2))
    windows = _windows(a, shape[1:-1])
    x = w.result(_number(w), FIRST)
    return FIRST, w.emit("Conv", x, kernel, group=a["groups"], dilations=dilations, **windows)


def _dense(w: _Writer, a: _Attributes) -> _Made:
    return LAST, w.emit("MatMul", w.result(_number(w), LAST), w.kernel([1, 0]))


def _max_pool(w: _Writer, a: _Attributes) -> _Made:
    """One side more padded than the other is padded before: onnx's own evaluator gets it wrong."""
    x = w.result(_number(w), FIRST)
    pads = [(0, 0), (0, 0), *(a["padding"] or ())]
    if any(low != high for low, high in pads):
        sizes = w.integers(*(low for low, _ in pads), *(high for _, high in pads))
        x = w.emit("Pad", x, sizes, w.constant(np.float32(-np.inf)))
        a = a | {"padding": None}
    return FIRST, w.emit("MaxPool", x, **_windows(a, a["window"]))


def _avg_pool(w: _Writer, a: _Attributes) -> _Made:
    x = w.result(_number(w), FIRST)
    return FIRST, w.emit("AveragePool", x, count_include_pad=1, **_windows(a, a["window"]))


def _sign(w: _Writer, a: _Attributes) -> _Made:
    form = w.form()
    zero = w.constant(np.float32(0))
    positive = w.emit("GreaterOrEqual", w.operand(0, form), zero)
    return form, w.from_bools(positive)


def _threshold(w: _Writer, a: _Attributes) -> _Made:
    form = w.form()
    thresholds: Any = w.frozen.tensors[str(w.node.inputs[1])]
    limits = w.of_channels(thresholds.astype(np.float32), form)
    positive = w.emit("GreaterOrEqual", w.operand(0, form), limits)
    if len(w.node.inputs) == 3:
        directions: Any = w.frozen.tensors[str(w.node.inputs[2])]
        positive = w.emit("Equal", positive, w.of_channels(directions.positive(), form))
    return form, w.from_bools(positive)


def _affine(w: _Writer, a: _Attributes) -> _Made:
    """Constants come first: onnxruntime multiplies weights by those that come second.

    Sums of signs would not be exact then, and a sum of 0 not 0: where a skip adds nothing, its sign
    would be that of the rounding error.
    """
    form = w.form()
    _, scale, offset = w.node.inputs
    y = w.operand(0, form)
    if scale != 1.0:
        y = w.emit("Mul", w.operand(1, form), y)
    return form, y if offset == 0.0 else w.emit("Add", w.operand(2, form), y)


def _prelu(w: _Writer, a: _Attributes) -> _Made:
    form = w.form()
    return form, w.emit("PRelu", w.operand(0, form), w.operand(1, form))


def _clip(w: _Writer, a: _Attributes) -> _Made:
    form = w.form()
    limits = ["" if v is None else w.constant(np.float32(v)) for v in (a["low"], a["high"])]
    return form, w.emit("Clip", w.operand(0, form), *limits)


def _elementwise(op: str) -> _Operation:
    def made(w: _Writer, a: _Attributes) -> _Made:
        form = w.form()
        return form, w.emit(op, *(w.operand(i, form) for i in range(len(w.node.inputs))))

    return made


def _reduce(op: str) -> _Operation:
    def made(w: _Writer, a: _Attributes) -> _Made:
        form = w.form()
        rank = len(w.frozen.type_of(_number(w)).shape)
        axes = [_axis(axis, rank, form) for axis in a["axes"]]
        y = w.emit(op, w.operand(0, form), w.integers(*sorted(axes)), keepdims=0)
        moved = form == FIRST and rank - 1 not in a["axes"] and len(w.node.type.shape) > 1
        return FIRST if moved else LAST, y

    return made


def _axis(axis: int, rank: int, form: str) -> int:
    """Where an axis of a sample is in a batch of a form."""
    if form == LAST:
        return axis + 1
    return 1 if axis == rank - 1 else axis + 2


def _pad(w: _Writer, a: _Attributes) -> _Made:
    form = w.form()
    pads = list(a["padding"])
    pads = [(0, 0), *(pads if form == LAST else [pads[-1], *pads[:-1]])]
    sizes = w.integers(*(low for low, _ in pads), *(high for _, high in pads))
    return form, w.emit("Pad", w.operand(0, form), sizes, w.constant(np.float32(a["value"])))


def _reshape(w: _Writer, a: _Attributes) -> _Made:
    return LAST, w.emit("Reshape", w.operand(0, LAST), w.integers(-1, *a["shape"]))


def _broadcast(w: _Writer, a: _Attributes) -> _Made:
    return LAST, w.emit("Expand", w.operand(0, LAST), w.integers(1, *a["shape"]))


def _transpose(w: _Writer, a: _Attributes) -> _Made:
    return LAST, w.emit("Transpose", w.operand(0, LAST), perm=[0, *(x + 1 for x in a["axes"])])


def _slice(w: _Writer, a: _Attributes) -> _Made:
    form, rank = w.form(), len(w.node.type.shape)
    axes = w.integers(*(_axis(axis, rank, form) for axis in range(rank)))
    steps = w.integers(*(a["step"] or (1,) * rank))
    bounds = (w.integers(*a["start"]), w.integers(*a["stop"]))
    return form, w.emit("Slice", w.operand(0, form), *bounds, axes, steps)


def _reverse(w: _Writer, a: _Attributes) -> _Made:
    count = len(a["axes"])
    axes = w.integers(*(axis + 1 for axis in a["axes"]))
    before = w.integers(*[np.iinfo(np.int64).min] * count)
    last = w.integers(*[-1] * count)
    return LAST, w.emit("Slice", w.operand(0, LAST), last, before, axes, last)


def _concat(w: _Writer, a: _Attributes) -> _Made:
    form = w.form()
    axis = _axis(a["axis"], len(w.node.type.shape), form)
    parts = (w.operand(i, form) for i in range(len(w.node.inputs)))
    return form, w.emit("Concat", *parts, axis=axis)


_OPERATIONS: dict[str, _Operation] = {
    "conv": _conv,
    "dense": _dense,
    "sign": _sign,
    "threshold": _threshold,
    "affine": _affine,
    "prelu": _prelu,
    "clip": _clip,
    **{op: _elementwise(op.capitalize()) for op in ("abs", "exp", "log", "tanh", "sigmoid", "erf")},
    **{op: _elementwise(op.capitalize()) for op in ("add", "sub", "mul", "div", "max", "min")},
    **{op: _elementwise(op.capitalize()) for op in ("sqrt", "pow", "equal", "greater", "not")},
    "greater_equal": _elementwise("GreaterOrEqual"),
    "select": _elementwise("Where"),
    "max_pool": _max_pool,
    "avg_pool": _avg_pool,
    "mean": _reduce("ReduceMean"),
    "reduce_max": _reduce("ReduceMax"),
    "reduce_min": _reduce("ReduceMin"),
    "pad": _pad,
    "reshape": _reshape,
    "broadcast": _broadcast,
    "transpose": _transpose,
    "slice": _slice,
    "reverse": _reverse,
    "concat": _concat,
}
