"""How real-valued layers start: PyTorch's default, and Kaiming normal by fan-out."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

kaiming_normal_fan_out = nnx.initializers.variance_scaling(2.0, "fan_out", "normal")

# Uniform within +-1/sqrt(fan-in), whose variance is a third of Kaiming's 1/fan-in.
torch_uniform = nnx.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def torch_uniform_bias(fan_in: int) -> nnx.Initializer:
    """PyTorch's default for a bias: uniform within +-1/sqrt(fan_in), as the kernel beside it."""

    def init(
        key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32, out_sharding: Any = None
    ) -> jax.Array:
        del out_sharding
        limit = 1 / math.sqrt(fan_in)
        return jax.random.uniform(key, shape, dtype, -limit, limit)

    return init


def torch_linear(in_features: int, out_features: int, *, rngs: nnx.Rngs) -> nnx.Linear:
    """A linear layer that starts as PyTorch's."""
    return nnx.Linear(
        in_features,
        out_features,
        kernel_init=torch_uniform,
        bias_init=torch_uniform_bias(in_features),
        rngs=rngs,
    )
