"""Reads and evaluates a frozen network as docs/reference/format.md describes it: NumPy alone.

It imports nothing of the library. What it computes is meant to be read beside the page, not fast.
"""

import hashlib
import itertools
import json
import math
from pathlib import Path

import numpy as np

F32 = np.float32


# --- the file


def read(path):
    """The graph of a file, its tensors, and whether its checksum holds."""
    content = Path(path).read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    metadata, data = header.pop("__metadata__"), content[8 + length :]
    digest, stored = hashlib.sha256(metadata["graph"].encode()), {}
    for name in sorted(header):
        entry = header[name]
        start, stop = entry["data_offsets"]
        sizes = ",".join(str(n) for n in entry["shape"])
        digest.update(f"\n{name} {entry['dtype']} {sizes}\n".encode() + data[start:stop])
        dtype = {"F32": "<f4", "I32": "<i4", "U8": "u1"}[entry["dtype"]]
        stored[name] = np.frombuffer(data[start:stop], dtype).reshape(entry["shape"])
    graph = json.loads(metadata["graph"])
    tensors = {
        n: unpacked(a, graph["signs"][n]) if n in graph["signs"] else a for n, a in stored.items()
    }
    return graph, tensors, digest.hexdigest() == metadata["sha256"]


def unpacked(data, shape):
    """+1 and -1: sign i is bit i % 8 of byte i // 8."""
    bits = [data[i // 8] >> (i % 8) & 1 for i in range(math.prod(shape))]
    return np.array([1 if bit else -1 for bit in bits], F32).reshape(shape)


def evaluate(path, x):
    """Output for a batch: (batch, *input) to (batch, *output)."""
    graph, tensors, _ = read(path)
    results = [np.asarray(x, F32)]
    with np.errstate(all="ignore"):
        for node in graph["nodes"]:
            inputs = [operand(i, results, tensors) for i in node["in"]]
            y = OPERATIONS[node["op"]](node, *inputs)
            assert list(y.shape[1:]) == node["shape"], node
            results.append(y if y.dtype == bool else y.astype(F32))
    return results[graph["output"]]


def operand(item, results, tensors):
    if isinstance(item, str):
        return tensors[item]
    return F32(item[0]) if isinstance(item, list) else results[item]


# --- products


def conv(node, x, w):
    filters, *size, depth = w.shape
    groups, axes = node.get("groups", 1), len(size)
    dilation = node.get("dilation", [1] * axes)
    places = windows(node, x, 0.0, [(k - 1) * d + 1 for k, d in zip(size, dilation, strict=True)])
    y = np.zeros((len(x), *places.shape[1 : 1 + axes], filters), F32)
    each = filters // groups
    for o in range(filters):
        channels = slice(o // each * depth, (o // each + 1) * depth)
        for tap in itertools.product(*map(range, size)):
            at = tuple(t * d for t, d in zip(tap, dilation, strict=True))
            seen = places[(slice(None),) * (1 + axes) + at + (channels,)]
            y[..., o] += np.sum(seen * w[(o, *tap)], axis=-1, dtype=F32)
    return y


def windows(node, x, value, extent):
    """(batch, *places, *extent, channels): what each place of a window sees."""
    axes = len(extent)
    pads = node.get("padding", [[0, 0]] * axes)
    x = np.pad(x, [(0, 0), *pads, (0, 0)], constant_values=value)
    seen = np.lib.stride_tricks.sliding_window_view(x, extent, tuple(range(1, 1 + axes)))
    seen = np.moveaxis(seen, 1 + axes, -1)
    steps = node.get("strides", [1] * axes)
    return seen[(slice(None), *(slice(None, None, s) for s in steps))]


def dense(node, x, w):
    return np.einsum("...i,oi->...o", x, w).astype(F32)


# --- the rest


def threshold(node, x, limits, directions=1):
    return np.where(x >= limits, F32(1), F32(-1)) * directions


def clip(node, x):
    return np.minimum(np.maximum(x, F32(node.get("low", -np.inf))), F32(node.get("high", np.inf)))


def max_pool(node, x):
    seen = windows(node, x, -np.inf, node["window"])
    return seen.max(tuple(range(-1 - len(node["window"]), -1)))


def avg_pool(node, x):
    seen = windows(node, x, 0.0, node["window"])
    total = seen.sum(tuple(range(-1 - len(node["window"]), -1)), dtype=F32)
    return total / F32(math.prod(node["window"]))


def mean(node, x):
    axes = tuple(a + 1 for a in node["axes"])
    return x.sum(axes, dtype=F32) / F32(math.prod(x.shape[a] for a in axes))


def reduced(function):
    return lambda node, x: function(x, tuple(a + 1 for a in node["axes"]))


def padded(node, x):
    return np.pad(x, [(0, 0), *node["padding"]], constant_values=node.get("value", 0.0))


def sliced(node, x):
    steps = node.get("step", [1] * len(node["start"]))
    places = zip(node["start"], node["stop"], steps, strict=True)
    return x[(slice(None), *(slice(*place) for place in places))]


def plain(function):
    return lambda node, *inputs: function(*inputs)


OPERATIONS = {
    "conv": conv,
    "dense": dense,
    "sign": lambda node, x: np.where(x >= 0, F32(1), F32(-1)),
    "threshold": threshold,
    "affine": lambda node, x, scale, offset: x * scale + offset,
    "prelu": lambda node, x, slope: np.where(x > 0, x, slope * x),
    "clip": clip,
    "abs": plain(np.abs),
    "exp": plain(np.exp),
    "log": plain(np.log),
    "tanh": plain(np.tanh),
    "sigmoid": lambda node, x: 1 / (1 + np.exp(-x)),
    "erf": plain(np.vectorize(math.erf, otypes=[F32])),
    "sqrt": plain(np.sqrt),
    "add": plain(np.add),
    "sub": plain(np.subtract),
    "mul": plain(np.multiply),
    "div": plain(np.divide),
    "max": plain(np.maximum),
    "min": plain(np.minimum),
    "pow": plain(np.power),
    "equal": plain(np.equal),
    "greater": plain(np.greater),
    "greater_equal": plain(np.greater_equal),
    "not": plain(np.logical_not),
    "select": plain(np.where),
    "max_pool": max_pool,
    "avg_pool": avg_pool,
    "mean": mean,
    "reduce_max": reduced(np.max),
    "reduce_min": reduced(np.min),
    "pad": padded,
    "reshape": lambda node, x: x.reshape(len(x), *node["shape"]),
    "broadcast": lambda node, x: np.broadcast_to(x, (len(x), *node["shape"])),
    "transpose": lambda node, x: x.transpose(0, *(a + 1 for a in node["axes"])),
    "slice": sliced,
    "reverse": reduced(np.flip),
    "concat": lambda node, *xs: np.concatenate(xs, node["axis"] + 1),
}
