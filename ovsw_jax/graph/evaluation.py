"""A network in evaluation mode, and the trace of a call of it, for `summary` and `freeze`."""

from flax import nnx

from ovsw_jax.graph.call import Call
from ovsw_jax.graph.module_tree import Model
from ovsw_jax.graph.trace import Trace, trace


def evaluation_copy(model: Model) -> Model:
    """A copy of a network in evaluation mode, without intermediate values."""
    network = nnx.clone(model, graph=True)
    nnx.pop(network, nnx.Intermediate)
    network.eval()
    return network


def trace_call(network: nnx.Module, call: Call) -> Trace:
    """The trace of a call; ValueError if the network does not take its arguments."""
    try:
        return trace(network, call)
    except Exception as error:
        given = [f"{x.dtype.name} array of shape {x.shape}" for x in call.abstract.values()]
        single = list(call.arrays) == ["0"]
        inputs = (
            f"one {given[0]}"
            if single
            else ", ".join(f"{place} ({x})" for place, x in zip(call.arrays, given, strict=True))
        )
        flags = "".join(f", {place}={value!r}" for place, value in call.flags.items())
        raise ValueError(
            f"{type(network).__name__} can't be called with {inputs}{flags}: "
            f"{type(error).__name__}: {error}\nGive the input_shape of a whole batch, such as "
            "(1, 224, 224, 3), and the dtype that the network takes; or all of its inputs as "
            "arrays or jax.ShapeDtypeStructs, and flags by their names. Only a positional input "
            "may be given by its shape alone: by name, that is jax.ShapeDtypeStruct(shape, dtype)."
        ) from error
