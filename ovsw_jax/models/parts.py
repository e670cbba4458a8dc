"""What the networks share."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from ovsw_jax.nn.layers import kaiming_normal


def hardtanh(x: jax.Array) -> jax.Array:
    """Clips to [-1, 1]: the activation between binary layers.

    Its gradient at exactly -1 and +1 is 0. Such ties are common here, where a saturated skip
    meets a batch norm that gives 0, and `jnp.clip` would pass half the gradient.
    """
    return jnp.where(jnp.abs(x) < 1, x, jnp.clip(lax.stop_gradient(x), -1, 1))


def batch_norm(features: int, rngs: nnx.Rngs) -> nnx.BatchNorm:
    """Batch norm with PyTorch's decay (0.1) and epsilon (1e-5).

    Flax keeps the biased variance as its running statistic, PyTorch the unbiased one.
    """
    return nnx.BatchNorm(features, momentum=0.9, epsilon=1e-5, use_fast_variance=False, rngs=rngs)


def stem(in_channels: int, features: int, rngs: nnx.Rngs, strides: int = 1) -> nnx.Conv:
    """The first layer, a real-valued convolution: 3x3, or wider where its windows lie apart."""
    reach = max(1, strides - 1)
    return nnx.Conv(
        in_channels,
        features,
        (2 * reach + 1, 2 * reach + 1),
        strides=strides,
        padding=reach,
        use_bias=False,
        kernel_init=kaiming_normal,
        rngs=rngs,
    )


def check_images(x: jax.Array, channels: int, multiple: int) -> None:
    """Raises ValueError unless `x` is a batch of images that the network can take."""
    if x.ndim != 4 or x.shape[3] != channels or any(n == 0 or n % multiple for n in x.shape[1:3]):
        raise ValueError(
            f"images of shape {x.shape} do not fit: this network takes (batch, height, width, "
            f"{channels}) with height and width divisible by {multiple}, as it halves them."
        )


def global_average_pool(x: jax.Array) -> jax.Array:
    """(batch, height, width, features) to (batch, features)."""
    return jnp.mean(x, axis=(1, 2))
