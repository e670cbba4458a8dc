"""A frozen network as one file: safetensors, with the graph as text in its metadata.

docs/reference/format.md describes it. The file may be damaged or hostile: nothing in it is run, and
all of it is checked before anything of the size that it asks for is allocated.
"""

import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ovsw_jax.deploy.graph import Graph, Node, Ref, Signs, Tensor, Type, type_of_tensor
from ovsw_jax.deploy.network import FrozenNetwork
from ovsw_jax.deploy.operations import MAX_ELEMENTS, Operand, infer
from ovsw_jax.deploy.preprocessing import checked_preprocessing

FORMAT = "ovsw-frozen"
VERSION = 1
# Of ResNet34 it is 20 kB.
MAX_HEADER_BYTES = 2**23
_DTYPES = {"F32": np.float32, "I32": np.int32, "U8": np.uint8}
_TO_SHAPE = ("reshape", "broadcast")  # whose attribute is the shape of the result
_OF_NODE = ("op", "in", "shape", "layer")


def save(network: FrozenNetwork, path: str | os.PathLike[str]) -> None:
    """Writes a network; what was at `path` is replaced once all is written."""
    import safetensors.numpy  # here, as all else works where it is missing

    graph = network.graph
    arrays = {
        name: tensor.bits if isinstance(tensor, Signs) else tensor
        for name, tensor in graph.tensors.items()
    }
    about = {
        "classes": network.classes,
        "preprocessing": None
        if network.preprocessing is None
        else {"mean": network.preprocessing.mean, "std": network.preprocessing.std},
        "source": network.source or None,
    }
    text = _to_text(graph, {name: value for name, value in about.items() if value is not None})
    metadata = {"format": FORMAT, "graph": text, "sha256": _digest(text, arrays)}
    _replace(Path(path), _in_order(safetensors.numpy.save(arrays, metadata)))


def load(path: str | os.PathLike[str]) -> FrozenNetwork:
    """Reads a network that `FrozenNetwork.save` wrote.

    The file may come from anywhere: it holds no code, and a damaged or hostile one is an error.

    Args:
      path: of the file.

    Returns:
      The network; it gives the same results as the one that was saved.

    Raises:
      ValueError: if the file holds no frozen network, or a damaged one, or one of a later version.
      OSError: if it can't be read.

    >>> import tempfile, ovsw_jax as ovsw
    >>> from flax import nnx
    >>> layer = ovsw.nn.BinaryDense(64, 8, rngs=nnx.Rngs(0))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     ovsw.deploy.freeze(layer, (1, 64)).save(f"{folder}/net.safetensors")
    ...     ovsw.deploy.load(f"{folder}/net.safetensors")
    <frozen BinaryDense: [64] to [8], 3 operations>

    Source: ours; the container is safetensors.
    """
    path = Path(path)
    try:
        text, arrays = _read(path)
        return _network(text, arrays)
    except _BrokenError as error:
        raise ValueError(
            f"{os.fspath(path)!r} is no frozen network that this version can read: {error}. Copy "
            "the file again, or freeze the network again."
        ) from None


class _BrokenError(Exception):
    """What is wrong with a file."""


def _need(holds: bool, message: str) -> None:
    if not holds:
        raise _BrokenError(message)


def _digest(text: str, arrays: Mapping[str, np.ndarray]) -> str:
    """Of everything that the file says: text, and each tensor with its name, dtype and shape."""
    names = {np.dtype(dtype): name for name, dtype in _DTYPES.items()}
    digest = hashlib.sha256(text.encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        sizes = ",".join(map(str, array.shape))
        digest.update(f"\n{name} {names[array.dtype]} {sizes}\n".encode())
        digest.update(array.astype(array.dtype.newbyteorder("<")).tobytes())
    return digest.hexdigest()


def _in_order(content: bytes) -> bytes:
    """The file with its metadata in order: safetensors writes it in another one each time."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # the tensors stay aligned
    return len(text).to_bytes(8, "little") + text + content[8 + length :]


def _replace(path: Path, content: bytes) -> None:
    with tempfile.NamedTemporaryFile(
        dir=path.parent, prefix=f".{path.name}.", delete=False
    ) as file:
        try:
            file.write(content)
            file.close()
            os.chmod(file.name, 0o666 & ~_umask())
            os.replace(file.name, path)
        except BaseException:
            os.unlink(file.name)
            raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


# --- the graph as text


def _to_text(graph: Graph, about: Mapping[str, Any]) -> str:
    signs = {n: t.shape for n, t in graph.tensors.items() if isinstance(t, Signs)}
    written = {
        "version": VERSION,
        **about,
        "input": list(graph.input.shape),
        "output": graph.output,
        "signs": signs,
        "nodes": [_node_as_json(node) for node in graph.nodes],
    }
    return json.dumps(written, separators=(",", ":"), allow_nan=False)


def _node_as_json(node: Node) -> dict[str, Any]:
    inputs = [[_short(ref)] if isinstance(ref, float) else ref for ref in node.inputs]
    written: dict[str, Any] = {"op": node.op, "in": inputs, "shape": node.type.shape}
    if node.layer:
        written["layer"] = node.layer
    for name, value in node.attributes.items():
        written[name] = _short(value) if isinstance(value, float) else value
    return written


def _short(number: float) -> float:
    """The shortest decimal that is this number in float32."""
    return float(str(np.float32(number)))


# --- reading


def _read(path: Path) -> tuple[str, dict[str, np.ndarray]]:
    """Text and tensors of a file, none of them longer than the file."""
    import safetensors

    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        _need(stat.S_ISREG(status.st_mode), "it is no regular file")
        start = file.read(8)
    length = int.from_bytes(start, "little")
    fits = len(start) == 8 and length <= min(MAX_HEADER_BYTES, status.st_size - 8)
    _need(fits, "its header is cut off or longer than any of a network")
    arrays: dict[str, np.ndarray] = {}
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            _need(metadata.get("format") == FORMAT, f"its metadata has no format {FORMAT!r}")
            for name in file.keys():  # noqa: SIM118
                dtype = file.get_slice(name).get_dtype()
                _need(dtype in _DTYPES, f"tensor {name!r} has dtype {dtype}")
                arrays[name] = file.get_tensor(name)
    except safetensors.SafetensorError as error:
        raise _BrokenError(str(error)) from None
    _need("graph" in metadata, "its metadata has no graph")
    text = metadata["graph"]
    same = metadata.get("sha256") == _digest(text, arrays)
    _need(same, "its checksum does not fit, so it is damaged")
    return text, arrays


def _network(text: str, arrays: Mapping[str, np.ndarray]) -> FrozenNetwork:
    written = _parsed(text)
    version = written.get("version")
    _need(version == VERSION, f"it has version {version!r} of the format, and this reads {VERSION}")
    tensors = _tensors(written.get("signs"), arrays)
    input_type = Type("float32", _shape("the input", written.get("input")))
    graph = _graph(input_type, written.get("nodes"), tensors, written.get("output"))
    used = {ref for node in graph.nodes for ref in node.inputs if isinstance(ref, str)}
    _need(used == set(tensors), "it has tensors that no node takes")
    classes, source = written.get("classes"), written.get("source") or {}
    _need(classes is None or _are_strings(classes), "classes are no names")
    _need(isinstance(source, dict) and _are_strings([*source.values()]), "source is no text")
    try:
        return FrozenNetwork(
            graph,
            classes=classes,
            preprocessing=checked_preprocessing(written.get("preprocessing")),
            source=source,
        )
    except (ValueError, TypeError) as error:
        raise _BrokenError(str(error).rstrip(".")) from None


def _parsed(text: str) -> dict[str, Any]:
    def refuse(name: str) -> None:
        raise ValueError(f"{name} is no number")

    try:
        written = json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise _BrokenError(f"its graph is no JSON ({error})") from None
    _need(isinstance(written, dict), "its graph is no JSON object")
    return written


def _tensors(signs: Any, arrays: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    _need(isinstance(signs, dict) and set(signs) <= set(arrays), "signs without their tensor")
    tensors: dict[str, Tensor] = {}
    for name, array in arrays.items():
        if name not in signs:
            _need(array.dtype != np.uint8, f"tensor {name!r} of bytes has no shape in signs")
            tensors[name] = array
            continue
        shape = _shape(f"tensor {name!r}", signs[name])
        size = _size(shape)
        fits = array.dtype == np.uint8 and array.shape == (-(-size // 8),)
        _need(fits, f"tensor {name!r} does not hold the bits of {list(shape)} signs")
        _need(size % 8 == 0 or array[-1] >> size % 8 == 0, f"tensor {name!r} has bits to spare")
        tensors[name] = Signs(shape, array)
    return tensors


def _graph(input_type: Type, nodes: Any, tensors: dict[str, Tensor], output: Any) -> Graph:
    _need(isinstance(nodes, list), "its nodes are no list")
    types, made = [input_type], []
    for number, written in enumerate(nodes, start=1):
        node = _node(number, written, types, tensors)
        made.append(node)
        types.append(node.type)
    is_result = isinstance(output, int) and not isinstance(output, bool) and 0 < output < len(types)
    _need(is_result, f"its output {output!r} is no result of a node")
    _need(types[output].kind != "bool", "its output is bools")
    return Graph(input_type, tuple(made), tensors, output)


def _node(number: int, written: Any, types: list[Type], tensors: Mapping[str, Tensor]) -> Node:
    where = f"node {number}"
    _need(isinstance(written, dict), f"{where} is no JSON object")
    op, given, layer = written.get("op"), written.get("in"), written.get("layer", "")
    _need(isinstance(op, str) and isinstance(layer, str), f"{where} has no name of an operation")
    _need(isinstance(given, list), f"{where} has no list of inputs")
    inputs, operands = [], []
    for item in given:
        ref = _ref(where, item, len(types), tensors)
        inputs.append(ref)
        operands.append(_operand(ref, types, tensors))
    shape = _shape(where, written.get("shape"))
    attributes = {k: _attribute(v) for k, v in written.items() if k not in _OF_NODE}
    if op in _TO_SHAPE:
        attributes["shape"] = shape
    try:
        result = infer(op, operands, attributes)
    except ValueError as error:
        raise _BrokenError(f"{where}: {error}") from None
    _need(shape == result.shape, f"{where} says shape {list(shape)}, not {list(result.shape)}")
    return Node(op, tuple(inputs), attributes, result, layer)


def _ref(where: str, item: Any, count: int, tensors: Mapping[str, Tensor]) -> Ref:
    if isinstance(item, str):
        _need(item in tensors, f"{where} takes a tensor {item!r} that is not there")
        return item
    if isinstance(item, list):
        _need(len(item) == 1 and isinstance(item[0], float), f"{where} takes {item!r}")
        return float(np.float32(item[0]))
    known = isinstance(item, int) and not isinstance(item, bool) and 0 <= item < count
    _need(known, f"{where} takes {item!r}, which is no earlier result")
    return int(item)


def _operand(ref: Ref, types: list[Type], tensors: Mapping[str, Tensor]) -> Operand:
    if isinstance(ref, str):
        return Operand(type_of_tensor(tensors[ref]), True)
    return (
        Operand(Type("float32", ()), True) if isinstance(ref, float) else Operand(types[ref], False)
    )


def _attribute(value: Any) -> Any:
    """As `infer` takes it; deeper lists than pairs are no attribute, and it refuses them."""
    if isinstance(value, float):
        return float(np.float32(value))
    return tuple(map(_attribute, value)) if isinstance(value, list) else value


def _shape(what: str, value: Any) -> tuple[int, ...]:
    fits = isinstance(value, list) and len(value) <= 16
    fits = fits and all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in value)
    _need(fits, f"{what} has no shape")
    shape = tuple(value)
    _need(_size(shape) <= MAX_ELEMENTS, f"{what} of shape {list(shape)} is larger than any network")
    return shape


def _size(shape: tuple[int, ...]) -> int:
    size = 1
    for n in shape:
        size *= n
    return size


def _are_strings(values: Any) -> bool:
    return isinstance(values, list | tuple) and all(isinstance(v, str) for v in values)
