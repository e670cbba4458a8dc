"""What the networks share: the kinds of layers they are made of, and their real-valued parts."""

from collections.abc import Callable
from typing import Protocol

import jax
import jax.numpy as jnp
from flax import nnx

from ovsw_jax.models.batch_norm import BatchNorm
from ovsw_jax.nn._checks import check_floating_dtype, floating_array, real_array
from ovsw_jax.precision import accurate_dtype

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
      x: real floating-point array of any shape.

    Returns:
      Array of the shape and dtype of `x`.

    >>> import ovsw_jax as ovsw
    >>> ovsw.models.hardtanh(jnp.array([-3.0, 0.5, 1.0])).tolist()
    [-1.0, 0.5, 1.0]

    Source: Courbariaux et al. 2016, BinaryNet; the gradient at the ends as in PyTorch.
    """
    return _hardtanh(floating_array("x", x))


@jax.custom_vjp
def _hardtanh(x: jax.Array) -> jax.Array:
    return _clip(x)


def _keep_mask(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    return _clip(x), jnp.abs(x) < 1


@jax.custom_jvp
def _clip(x: jax.Array) -> jax.Array:
    return jnp.clip(x, -1, 1)


@_clip.defjvp
def _tangent_inside(
    primals: tuple[jax.Array], tangents: tuple[jax.Array]
) -> tuple[jax.Array, jax.Array]:
    # For second derivatives. Alone it would do for the first, but keep zeros beside the mask.
    return _clip(*primals), jnp.where(jnp.abs(*primals) < 1, *tangents, 0)


def _pass_inside(inside: jax.Array, cotangent: jax.Array) -> tuple[jax.Array]:
    return (jnp.where(inside, cotangent, 0),)


_hardtanh.defvjp(_keep_mask, _pass_inside)


def batch_norm(
    features: int, rngs: nnx.Rngs, *, dtype: jax.typing.DTypeLike | None = None
) -> BatchNorm:
    """The batch norm of all networks."""
    check_floating_dtype(dtype=dtype)
    return BatchNorm(features, dtype=dtype, rngs=rngs)


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
    x = real_array("images", x)
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


def check_maps(x: jax.Array, in_features: int) -> jax.Array:
    """The input of a block as an array.

    Raises:
      ValueError: unless it is (batch, height, width, in_features), with a pixel at least.
      TypeError: if it is not real floating-point.
    """
    x = floating_array("input", x)
    if x.ndim != 4 or x.shape[3] != in_features or 0 in x.shape[1:3]:
        raise ValueError(
            f"input of shape {x.shape} does not fit a block for {in_features} channels, which "
            f"takes (batch, height, width, {in_features}), channels last, and a pixel at least."
        )
    return x


def widen(x: jax.Array) -> jax.Array:
    """`x` in float32 at least: what the last layers compute in, so that logits are not rounded."""
    return x.astype(accurate_dtype(x))


def global_average_pool(x: jax.Array) -> jax.Array:
    """(batch, height, width, features) to (batch, features), in float32 at least."""
    return jnp.mean(widen(x), axis=(1, 2))
