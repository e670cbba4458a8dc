"""From a trained network to a frozen one."""

import importlib.metadata
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from flax import nnx

from ovsw_jax.deploy.binary_weights import pack_binary_weights
from ovsw_jax.deploy.fold import fold_affine
from ovsw_jax.deploy.graph import Graph
from ovsw_jax.deploy.network import FrozenNetwork
from ovsw_jax.deploy.order import order_signs
from ovsw_jax.deploy.patterns import find_patterns
from ovsw_jax.deploy.preprocessing import Preprocessing, checked_preprocessing
from ovsw_jax.deploy.read import read
from ovsw_jax.deploy.thresholds import find_thresholds
from ovsw_jax.graph.call import call_with
from ovsw_jax.graph.evaluation import evaluation_copy
from ovsw_jax.graph.module_tree import at, check_is_nnx, check_seen
from ovsw_jax.graph.trace import Trace, explained_trace


def freeze(
    model: nnx.Module,
    input_shape: Sequence[int],
    *,
    classes: Sequence[str] | None = None,
    preprocessing: Preprocessing | Mapping[str, Any] | None = None,
) -> FrozenNetwork:
    """Makes a small network of a trained one, with one bit per binary weight, for use anywhere.

    The network is traced once in evaluation mode, and does not change. What it computes of its
    input becomes a graph of a few operations; everything else is a constant:

    - weights that are signs are packed, eight in a byte;
    - factors, biases and batch norms are folded into one scale and one offset per channel;
    - a sign behind such a sum, with no skip in between, becomes an integer threshold;
    - all else, such as the stem, the head and the skips, is float32 arithmetic.

    All is computed in float32, also of networks whose layers round to bfloat16. Sums of signs are
    exact; real sums can differ from the network's in the last bits, since constants are folded.

    Args:
      model: the network, of Flax NNX, with one array as its result, such as logits.
      input_shape: of a batch, batch axis first. The frozen network takes any batch size.
      classes: name of each class, for those who use the network.
      preprocessing: how raw images become its input; a note for those who use the network, which
        takes what `model` takes.

    Returns:
      The network as a `FrozenNetwork`: call it, `save` it, or write it as ONNX with `to_onnx`.

    Raises:
      TypeError: if `model` is not an NNX module.
      ValueError: if the network does not take such an input, has a part that the graph can't
        express (the error names the layer and the operation), or mixes the samples of a batch; or
        if `classes` are not one name per output.

    >>> import jax.numpy as jnp, ovsw_jax as ovsw
    >>> layer = ovsw.nn.BinaryDense(64, 8, rngs=nnx.Rngs(0))
    >>> frozen = ovsw.deploy.freeze(layer, (1, 64))
    >>> [node.op for node in frozen.graph.nodes]
    ['sign', 'dense', 'affine']
    >>> frozen(jnp.ones((5, 64))).shape
    (5, 8)

    Source: ours.
    """
    check_is_nnx(model, "ovsw.deploy.freeze", "Convert it with flax.nnx.bridge, or write it anew.")
    check_seen(model, "ovsw.deploy.freeze")
    network = evaluation_copy(model)
    trace = explained_trace(network, call_with((input_shape,), {}))
    graph = simplified(read(trace, _arrays(network, trace)))
    return FrozenNetwork(
        graph,
        classes=classes,
        preprocessing=checked_preprocessing(preprocessing),
        source=_source(model),
    )


def simplified(graph: Graph) -> Graph:
    """The graph after all passes, in their order: each finds what those before it have made."""
    for improve in (
        find_patterns,
        pack_binary_weights,
        order_signs,
        find_thresholds,
        fold_affine,
    ):
        graph = improve(graph)
    return graph


def _arrays(network: nnx.Module, trace: Trace) -> list[jax.Array]:
    """The arrays of a network, in the order in which its program takes them."""
    values: dict[Any, Any] = {}
    for path, variables in trace.variables.items():
        values |= dict(zip(variables, jax.tree.leaves(at(network, path)), strict=True))
    arrays = [values[v] for v in trace.program.jaxpr.invars if v in values]
    if any(isinstance(array, jax.ShapeDtypeStruct) for array in arrays):
        raise ValueError(
            "the model holds shapes instead of arrays, as nnx.eval_shape makes it: freeze a model "
            "that has its trained parameters."
        )
    return arrays


def _source(model: nnx.Module) -> dict[str, str]:
    versions = {name: importlib.metadata.version(name) for name in ("jax", "flax")}
    return {"network": type(model).__name__, "ovsw_jax": _version(), **versions}


def _version() -> str:
    import ovsw_jax

    return ovsw_jax.__version__
