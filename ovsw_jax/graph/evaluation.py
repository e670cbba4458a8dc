"""A network in evaluation mode, for `summary` and `freeze`."""

from flax import nnx

from ovsw_jax.graph.module_tree import Model


def evaluation_copy(model: Model) -> Model:
    """A copy of a network in evaluation mode, without intermediate values."""
    network = nnx.clone(model, graph=True)
    nnx.pop(network, nnx.Intermediate)
    network.eval()
    return network
