"""The file of a frozen network: small, complete, and checked, whoever wrote it."""

import copy
import hashlib
import json
import os
import pathlib
import re
import tracemalloc

import frozen_reader
import hypothesis
import numpy as np
import pytest
from flax import nnx
from frozen_networks import exact, images, same
from hypothesis import given
from hypothesis import strategies as st

import ovsw_jax as ovsw

LEAST = 2**24  # bytes that reading a file of a few kB may take


@pytest.fixture(scope="module")
def frozen():
    class Net(nnx.Module):
        def __init__(self):
            rngs = nnx.Rngs(0)
            self.conv = ovsw.nn.BinaryConv(3, 5, (3, 3), scale="learned", rngs=rngs)
            self.norm = ovsw.nn.BatchNorm(5, rngs=rngs)
            self.dense = ovsw.nn.BinaryDense(80, 4, scale=None, rngs=rngs)
            self.prelu = ovsw.nn.PReLU(4, rngs=rngs)

        def __call__(self, x):
            x = ovsw.nn.hardtanh(self.norm(self.conv(x)))
            return self.prelu(self.dense(x.reshape(len(x), -1)))

    return ovsw.deploy.freeze(
        exact(Net()),
        (1, 4, 4, 3),
        classes=["cat", "dog", "owl", "Straße"],
        preprocessing={"mean": [0.1, 0.2, 0.3], "std": [1, 2, 3]},
    )


@pytest.fixture(scope="module")
def content(frozen, tmp_path_factory):
    path = tmp_path_factory.mktemp("net") / "net.safetensors"
    frozen.save(path)
    return path.read_bytes()


def parts(content):
    """Header and data of a safetensors file, and the graph in the header."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    return header, content[8 + length :], json.loads(header["__metadata__"]["graph"])


def joined(header, data, graph):
    """A file of these, with the checksum that belongs to them."""
    header = copy.deepcopy(header)
    text = graph if isinstance(graph, str) else json.dumps(graph)
    digest = hashlib.sha256(text.encode())
    for name in sorted(set(header) - {"__metadata__"}):
        entry = header[name]
        sizes = ",".join(map(str, entry["shape"]))
        start, stop = entry["data_offsets"]
        digest.update(f"\n{name} {entry['dtype']} {sizes}\n".encode() + data[start:stop])
    header["__metadata__"] |= {"graph": text, "sha256": digest.hexdigest()}
    written = json.dumps(header).encode()
    written += b" " * (-len(written) % 8)
    return len(written).to_bytes(8, "little") + written + data


def loaded(content, folder):
    path = pathlib.Path(folder) / "net.safetensors"
    path.write_bytes(content)
    return ovsw.deploy.load(path)


def refused(content, folder):
    """What the error says; whatever the file, reading takes little memory."""
    tracemalloc.start()
    try:
        with pytest.raises(
            ValueError, match="is no frozen network that this version can read"
        ) as e:
            loaded(content, folder)
        assert tracemalloc.get_traced_memory()[1] < LEAST
    finally:
        tracemalloc.stop()
    return str(e.value)


def test_all_comes_back(frozen, content, tmp_path):
    back = loaded(content, tmp_path)
    x = images((3, 4, 4, 3))
    assert same(back(x), frozen(x))
    assert back.graph.nodes == frozen.graph.nodes
    for name in ("classes", "preprocessing", "source", "input_shape", "output_shape"):
        assert getattr(back, name) == getattr(frozen, name)
    assert frozen.source["network"] == "Net"
    assert frozen.source["ovsw_jax"] == ovsw.__version__
    back.save(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == content


def test_the_independent_reader_finds_the_checksum_right(content, tmp_path):
    (tmp_path / "net").write_bytes(content)
    graph, _, holds = frozen_reader.read(tmp_path / "net")
    assert holds
    assert graph["classes"][3] == "Straße"


def test_an_older_file_is_replaced_whole_or_not_at_all(frozen, tmp_path, monkeypatch):
    path = tmp_path / "net.safetensors"
    path.write_text("old")
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        frozen.save(path)
    assert [p.name for p in tmp_path.iterdir()] == ["net.safetensors"]
    assert path.read_text() == "old"


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda rngs: ovsw.models.CifarResNet20(rngs=rngs), (1, 32, 32, 3)),
        (lambda rngs: ovsw.models.SmallResNet(in_channels=1, rngs=rngs), (1, 8, 8, 1)),
        (lambda rngs: ovsw.nn.BinaryDense(3, 5, rngs=rngs), (1, 3)),
    ],
    ids=["CifarResNet20", "SmallResNet", "BinaryDense"],
)
def test_it_is_as_small_as_the_summary_says(make, shape, tmp_path):
    model = make(nnx.Rngs(0))
    rng = np.random.default_rng(0)  # batch norms as after training: none is a single number
    for path, variable in nnx.to_flat_state(nnx.state(model, (nnx.Param, nnx.BatchStat))):
        if path[-1] in ("scale", "bias", "mean", "var"):
            variable[...] = variable[...] + rng.uniform(0.1, 1, variable.shape).astype(np.float32)
    ovsw.deploy.freeze(model, shape).save(tmp_path / "net.safetensors")
    size = (tmp_path / "net.safetensors").stat().st_size
    assert size <= 1.02 * ovsw.summary(model, shape).total.stored_bytes + 4096


# --- damaged and hostile files


@hypothesis.settings(max_examples=100)
@given(data=st.data())
def test_a_flipped_byte_is_noticed(data, content, tmp_path_factory):
    place = data.draw(st.integers(0, len(content) - 1))
    changed = content[place] ^ data.draw(st.integers(1, 255))
    damaged = content[:place] + bytes([changed]) + content[place + 1 :]
    folder = tmp_path_factory.getbasetemp()
    try:
        assert parts(damaged) == parts(content)  # a byte between the words of the header
    except (ValueError, AssertionError, KeyError, TypeError):
        refused(damaged, folder)


@hypothesis.settings(max_examples=50)
@given(data=st.data())
def test_a_file_that_is_cut_off_or_goes_on_is_noticed(data, content, tmp_path_factory):
    folder = tmp_path_factory.getbasetemp()
    refused(content[: data.draw(st.integers(0, len(content) - 1))], folder)
    refused(content + data.draw(st.binary(min_size=1, max_size=9)), folder)


@hypothesis.settings(max_examples=50)
@given(content=st.binary(max_size=200))
def test_no_other_file_is_taken_for_one(content, tmp_path_factory):
    refused(content, tmp_path_factory.getbasetemp())


def nodes_of(graph, op):
    return next(node for node in graph["nodes"] if node["op"] == op)


def _op(graph):
    graph["nodes"][0]["op"] = "eval"


def _cycle(graph):
    graph["nodes"][1]["in"][0] = 2


def _later(graph):
    graph["nodes"][0]["in"][0] = 3


def _negative(graph):
    graph["nodes"][0]["in"][0] = -1


def _bool(graph):
    graph["nodes"][1]["in"][0] = True


def _no_tensor(graph):
    nodes_of(graph, "conv")["in"][1] = "t99"


def _huge_input(graph):
    graph["input"] = [2**20, 2**20, 3]


def _huge_pad(graph):
    nodes_of(graph, "conv")["padding"] = [[2**27, 2**27], [2**27, 2**27]]


def _huge_signs(graph):
    graph["signs"][next(iter(graph["signs"]))] = [2**40]


def _huge_int(graph):
    graph["input"] = [10**400]


def _groups(graph):
    nodes_of(graph, "conv")["groups"] = 0


def _strides(graph):
    nodes_of(graph, "conv")["strides"] = [0, 1]


def _unknown(graph):
    nodes_of(graph, "conv")["run"] = "os.system"


def _shape(graph):
    graph["nodes"][0]["shape"] = [4, 4, 4]


def _reshape(graph):
    nodes_of(graph, "reshape")["shape"] = [81]


def _output(graph):
    graph["output"] = 99


def _output_list(graph):
    graph["output"] = []


def _classes(graph):
    graph["classes"] = ["one"]


def _classes_numbers(graph):
    graph["classes"] = [1, 2, 3, 4]


def _preprocessing(graph):
    graph["preprocessing"] = {"mean": [0], "std": [0]}


def _version(graph):
    graph["version"] = 2


def _nodes(graph):
    graph["nodes"] = {"op": "sign"}


def _node(graph):
    graph["nodes"][0] = 7


def _inputs(graph):
    graph["nodes"][0]["in"] = [0] * 70000


def _unused(graph):
    nodes_of(graph, "threshold")["op"] = "sign"
    nodes_of(graph, "sign")["in"] = [0]
    graph["nodes"][2]["in"] = graph["nodes"][2]["in"][:1]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_op, "operation 'eval' is unknown"),
        (_cycle, "node 2 takes 2, which is no earlier result"),
        (_later, "node 1 takes 3, which is no earlier result"),
        (_negative, "node 1 takes -1"),
        (_bool, "node 2 takes True"),
        (_no_tensor, "takes a tensor 't99' that is not there"),
        (_huge_input, "larger than any network"),
        (_huge_pad, "at most 268435456 per sample"),
        (_huge_signs, "larger than any network"),
        (_huge_int, "larger than any network"),
        (_groups, "groups=0 is no such attribute of conv"),
        (_strides, "strides=(0, 1) is no such attribute of conv"),
        (_unknown, "conv has no attribute 'run'"),
        (_shape, "node 1 says shape [4, 4, 4], not [4, 4, 3]"),
        (_reshape, "can't become [81]"),
        (_output, "its output 99 is no result of a node"),
        (_output_list, "its output [] is no result of a node"),
        (_classes, "classes has 1 names"),
        (_classes_numbers, "classes are no names"),
        (_preprocessing, "std must be above 0"),
        (_version, "version 2 of the format"),
        (_nodes, "its nodes are no list"),
        (_node, "node 1 is no JSON object"),
        (_inputs, "takes 1 to 1 inputs, not 70000"),
        (_unused, "tensors that no node takes"),
    ],
)
def test_a_graph_that_was_tampered_with_is_refused(change, said, content, tmp_path):
    header, data, graph = parts(content)
    change(graph)
    assert said in refused(joined(header, data, graph), tmp_path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[" * 100_000, "no JSON"),
        ("{", "no JSON"),
        ("[]", "no JSON object"),
        ('{"version": NaN}', "NaN is no number"),
        ('{"version": ' + "9" * 10_000 + "}", "no JSON"),
    ],
)
def test_text_that_is_no_graph_is_refused(text, said, content, tmp_path):
    header, data, _ = parts(content)
    assert said in refused(joined(header, data, text), tmp_path)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=2)
    ),
    max_leaves=5,
)


@hypothesis.settings(max_examples=80)
@given(data=st.data())
def test_any_value_anywhere_in_the_graph_is_an_error_or_a_network(data, content, tmp_path_factory):
    header, rest, graph = parts(content)
    place = graph
    while True:
        keys = sorted(place) if isinstance(place, dict) else range(len(place))
        key = data.draw(st.sampled_from(list(keys)))
        deeper = isinstance(place[key], dict | list) and len(place[key]) > 0
        if not deeper or data.draw(st.booleans()):
            break
        place = place[key]
    place[key] = data.draw(JSON)
    try:
        loaded(joined(header, rest, graph), tmp_path_factory.getbasetemp())
    except ValueError as error:
        assert "is no frozen network that this version can read" in str(error)  # noqa: PT017


def test_a_tensor_that_does_not_fit_is_refused(content, tmp_path):
    header, data, graph = parts(content)
    name = next(n for n in header if n != "__metadata__" and header[n]["dtype"] == "F32")
    header[name]["dtype"] = "I32"
    assert re.search("float32 number per channel", refused(joined(header, data, graph), tmp_path))
    header[name] |= {"dtype": "F16", "shape": [2 * n for n in header[name]["shape"]]}
    assert "has dtype F16" in refused(joined(header, data, graph), tmp_path)


def test_a_header_that_is_longer_than_the_file_is_refused(tmp_path):
    for length in (2**62, 2**23 + 1, 100):
        content = length.to_bytes(8, "little") + b"{}"
        assert "its header is cut off" in refused(content, tmp_path)


def test_a_file_that_is_missing_is_the_systems_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        ovsw.deploy.load(tmp_path / "net.safetensors")
    with pytest.raises(OSError, match="directory"):
        ovsw.deploy.load(tmp_path)
