"""What blocks and networks share: argument types, real-valued layers, initializers, checks."""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from inspect import Parameter, signature
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from flax import nnx

from ovsw_jax.nn._checks import floating_array, real_array
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
        needs = f"(batch, height, width, {channels}), channels last. in_channels= sets how many."
    elif 0 in x.shape[1:3]:
        needs = "a height and width of at least one pixel."
    elif size is not None and x.shape[1:3] != (size, size):
        needs = f"a height and width of {size}, as its linear layer sees every pixel."
    elif any(n % multiple for n in x.shape[1:3]):
        needs = f"a height and width divisible by {multiple}, as it halves them."
    else:
        return
    raise ValueError(f"images of shape {x.shape} do not fit: this network takes {needs}")


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


@nnx.remat
def _computed_again(block: Any, x: jax.Array) -> jax.Array:
    """A block of which the backward pass keeps only the input."""
    y: jax.Array = block(x)
    return y


def apply_stages(network: Any, x: jax.Array) -> jax.Array:
    """Applies the blocks of a network, `layer1` to the one of its last stage.

    Those of its first `remat_stages` stages are computed again in the backward pass.

    Raises:
      ValueError: if `remat_stages` is no number of its stages.
    """
    first, stages = network.remat_stages, network.stages
    if isinstance(first, bool) or not isinstance(first, int) or not 0 <= first <= stages:
        raise ValueError(
            f"remat_stages={first!r} must be an integer from 0 to {stages}: how many of the "
            "network's first stages are computed again in the backward pass."
        )
    for number in range(1, stages + 1):
        for block in getattr(network, f"layer{number}"):
            x = _computed_again(block, x) if number <= first else block(x)
    return x


def widen(x: jax.Array) -> jax.Array:
    """`x` in float32 at least: the last layers compute in it, so that logits are not rounded."""
    return x.astype(accurate_dtype(x))


def global_average_pool(x: jax.Array) -> jax.Array:
    """(batch, height, width, features) to (batch, features), in float32 at least."""
    return jnp.mean(widen(x), axis=(1, 2))


# Initializers of real-valued layers.

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


# What a callable that makes layers or blocks takes, found before it is called.


def takes(make: Callable[..., Any], name: str) -> bool:
    """Whether it has a keyword of this name; a class, a function, or a `partial` of one."""
    made = _made_by(make)
    is_class = isinstance(made, type)
    # Of an NNX class itself the signature is that of its metaclass, which takes anything.
    parameters = signature(made.__init__ if is_class else made).parameters
    return name in parameters or any(p.kind is Parameter.VAR_KEYWORD for p in parameters.values())


def settings(make: Callable[..., Any]) -> Mapping[str, Any]:
    """The keywords that a caller has fixed with a `partial`."""
    return make.keywords if isinstance(make, functools.partial) else {}


def name_of(make: Callable[..., Any]) -> str:
    """Its name, for an error."""
    made = _made_by(make)
    return getattr(made, "__name__", repr(made))


def _made_by(make: Callable[..., Any]) -> Any:
    return make.func if isinstance(make, functools.partial) else make
