"""What the networks share: the kinds of layers they are made of, and their real-valued parts."""

from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from ovsw_jax.latent import accurate_dtype

Activation = Callable[[jax.Array], jax.Array]


class ConvFactory(Protocol):
    """Makes the convolutions that are binary by default.

    `ovsw_jax.nn.BinaryConv` is one, so is `partial(BinaryConv, scale="learned")`, or
    `partial(nnx.Conv, use_bias=False)` for the real-valued twin of a network.
    """

    def __call__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: tuple[int, int],
        *,
        strides: int,
        padding: int,
        dtype: jax.typing.DTypeLike | None,
        rngs: nnx.Rngs,
    ) -> Callable[[jax.Array], jax.Array]:
        """A layer from (batch, height, width, in_features) to (..., out_features)."""


def hardtanh(x: jax.Array) -> jax.Array:
    """Clips to [-1, 1]: the activation between binary layers.

    Its gradient at exactly -1 and +1 is 0. Such ties are common here, where a saturated skip
    meets a batch norm that gives 0, and `jnp.clip` would pass half the gradient.

    Args:
      x: real array of any shape.

    Returns:
      Array of the shape and dtype of `x`.

    >>> import ovsw_jax as ovsw
    >>> ovsw.models.hardtanh(jnp.array([-3.0, 0.5, 1.0])).tolist()
    [-1.0, 0.5, 1.0]

    Source: Courbariaux et al. 2016, BinaryNet; the gradient at the ends as in PyTorch.
    """
    return jnp.where(jnp.abs(x) < 1, x, jnp.clip(lax.stop_gradient(x), -1, 1))


def batch_norm(
    features: int, rngs: nnx.Rngs, *, dtype: jax.typing.DTypeLike | None = None
) -> nnx.BatchNorm:
    """Batch norm with PyTorch's decay (0.1) and epsilon (1e-5).

    Flax keeps the biased variance as its running statistic, PyTorch the unbiased one. All is
    computed in float32 at least, and only the result rounded to `dtype`: Flax alone would round
    the running statistics too.
    """
    return nnx.BatchNorm(
        features,
        momentum=0.9,
        epsilon=1e-5,
        use_fast_variance=False,
        dtype=dtype,
        promote_dtype=_widen,
        rngs=rngs,
    )


def _widen(arrays: Any, /, *, dtype: object = None, inexact: bool = True) -> Any:
    """Brings all arrays to float32, or to float64 if one is; `dtype` is left for the result."""
    del dtype, inexact
    wide = accurate_dtype(*(x for x in arrays if x is not None))
    return tuple(None if x is None else jnp.asarray(x, wide) for x in arrays)


def stem(
    in_channels: int,
    features: int,
    *,
    kernel_init: nnx.Initializer,
    kernel_size: int = 3,
    strides: int = 1,
    dtype: jax.typing.DTypeLike | None,
    rngs: nnx.Rngs,
) -> nnx.Conv:
    """The first layer: a real-valued convolution without bias, its windows centred."""
    return nnx.Conv(
        in_channels,
        features,
        (kernel_size, kernel_size),
        strides=strides,
        padding=(kernel_size - 1) // 2,
        use_bias=False,
        kernel_init=kernel_init,
        dtype=dtype,
        rngs=rngs,
    )


def check_images(
    x: jax.Array, channels: int, *, multiple: int = 1, size: int | None = None
) -> None:
    """Raises ValueError unless `x` is a batch of images that the network can take.

    Args:
      x: what the network was called with.
      channels: how many it was made for.
      multiple: what height and width must be divisible by.
      size: what height and width must be; None: any.
    """
    if x.ndim != 4 or x.shape[3] != channels:
        takes = f"(batch, height, width, {channels}), channels last. in_channels= sets how many."
    elif 0 in x.shape[1:3]:
        takes = "a height and width of at least one pixel."
    elif size is not None and x.shape[1:3] != (size, size):
        takes = f"a height and width of {size}, as its linear layer sees every pixel."
    elif any(n % multiple for n in x.shape[1:3]):
        takes = f"a height and width divisible by {multiple}, as it halves them."
    else:
        return
    raise ValueError(f"images of shape {x.shape} do not fit: this network takes {takes}")


def widen(x: jax.Array) -> jax.Array:
    """`x` in float32 at least: what the last layers compute in, so that logits are not rounded."""
    return x.astype(accurate_dtype(x))


def global_average_pool(x: jax.Array) -> jax.Array:
    """(batch, height, width, features) to (batch, features), in float32 at least."""
    return jnp.mean(widen(x), axis=(1, 2))
