"""Initial latent weights of another distribution and scale (Appendix C), for any network."""

from typing import Any

import jax
from flax import traverse_util

from experiments.training.networks import KernelAxes


def initialise_latent(
    params: Any,
    key: jax.Array,
    distribution: str,
    gamma: jax.typing.ArrayLike,
    axes: KernelAxes | None,
) -> Any:
    r"""Latent kernels :math:`\gamma W`, W of a Kaiming distribution (Eqs. 21 and 22).

    Args:
      params: parameters as the network makes them: Kaiming normal.
      key: random key for uniform weights.
      distribution: "normal" keeps the network's own weights, "uniform" draws new ones.
      gamma: factor.
      axes: of the latent kernels; None if there are none.

    Returns:
      The params with other latent kernels, of standard deviation gamma sqrt(2 / fan_in) for both
      distributions.
    """
    flat = traverse_util.flatten_dict(params)
    of_filters, of_layers = (
        traverse_util.flatten_dict(tree)
        for tree in ((axes.filter, axes.layer) if axes else ({}, {}))
    )
    for number, (path, weight) in enumerate(flat.items()):
        if path[-1] == "latent_kernel":
            if distribution == "uniform":
                draw = jax.random.fold_in(key, number)
                initializer = _kaiming_uniform(weight.ndim, of_filters[path], of_layers[path])
                weight = initializer(draw, weight.shape, weight.dtype)
            flat[path] = gamma * weight
    return traverse_util.unflatten_dict(flat)


def _kaiming_uniform(
    ndim: int, of_filter: tuple[int, ...], of_layer: tuple[int, ...]
) -> jax.nn.initializers.Initializer:
    """Its fan-in is the number of weights of one filter."""
    return jax.nn.initializers.variance_scaling(
        2.0,
        "fan_in",
        "uniform",
        in_axis=of_filter,
        out_axis=[axis for axis in of_layer if axis not in of_filter],
        batch_axis=[axis for axis in range(ndim) if axis not in of_layer],
    )
