"""Initial latent weights of another distribution and scale (Appendix C), for any network."""

from typing import Any

import jax
from flax import traverse_util

_KAIMING_UNIFORM = jax.nn.initializers.variance_scaling(2.0, "fan_in", "uniform")


def initialise_latent(
    params: Any, key: jax.Array, distribution: str, gamma: jax.typing.ArrayLike
) -> Any:
    r"""Latent kernels :math:`\gamma W`, W of a Kaiming distribution (Eqs. 21 and 22).

    Args:
      params: parameters as the network makes them: Kaiming normal.
      key: random key for uniform weights.
      distribution: "normal" keeps the network's own weights, "uniform" draws new ones.
      gamma: factor.

    Returns:
      The params with other latent kernels, of standard deviation gamma sqrt(2 / fan_in) for both
      distributions.
    """
    flat = traverse_util.flatten_dict(params)
    for number, (path, weight) in enumerate(flat.items()):
        if path[-1] == "latent_kernel":
            if distribution == "uniform":
                draw = jax.random.fold_in(key, number)
                weight = _KAIMING_UNIFORM(draw, weight.shape, weight.dtype)
            flat[path] = gamma * weight
    return traverse_util.unflatten_dict(flat)
