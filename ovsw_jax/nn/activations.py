"""Activations with learned parameters: PReLU and RPReLU, one of each per channel."""

import jax
import jax.numpy as jnp
from flax import nnx

from ovsw_jax.hyperparams import known_number
from ovsw_jax.nn._checks import check_channels, check_counts, check_floating_dtype
from ovsw_jax.nn._kernels.features import along_features
from ovsw_jax.precision import accurate_dtype


class PReLU(nnx.Module):
    r"""Rectifier with a learned slope for each channel.

    .. math::
      y = x \text{ if } x > 0, \text{ else } \beta x

    `flax.nnx.PReLU` learns one slope for all channels.

    Attributes:
      negative_slope: `nnx.Param`, (features,), the :math:`\beta`.

    Example:
      >>> import jax.numpy as jnp, ovsw_jax as ovsw
      >>> prelu = ovsw.nn.PReLU(2)
      >>> prelu(jnp.array([[-4.0, 3.0]])).tolist()
      [[-1.0, 3.0]]

    Source: He et al. 2015, Delving Deep into Rectifiers; behind binary layers: Bulat et al. 2019.
    """

    def __init__(
        self,
        features: int,
        *,
        negative_slope_init: float = 0.25,
        param_dtype: jax.typing.DTypeLike = jnp.float32,
        rngs: nnx.Rngs | None = None,
    ):
        """Makes the activation.

        Args:
          features: channels, the last axis of the input.
          negative_slope_init: all slopes at first.
          param_dtype: of the slopes.
          rngs: not drawn from, as nothing starts at random; layers are made with one.

        Raises:
          ValueError: if `features` is no positive integer, or the slope not finite.
          TypeError: if the slope is no number, or `param_dtype` not real floating-point.
        """
        del rngs
        _check(features, negative_slope_init, param_dtype)
        self.negative_slope = nnx.Param(jnp.full(features, negative_slope_init, param_dtype))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Applies the activation.

        Args:
          x: (..., features), real floating-point.

        Returns:
          Array of the shape and dtype of `x`; it is computed in float32 at least.

        Raises:
          ValueError: if the last axis of `x` has another size.
          TypeError: if `x` is not real floating-point.
        """
        return prelu(x, self.negative_slope[...])


class RPReLU(nnx.Module):
    r"""PReLU whose kink is learned: one place and one slope for each channel (ReActNet).

    .. math::
      y = x - \gamma + \zeta \text{ if } x > \gamma, \text{ else } \beta (x - \gamma) + \zeta

    Attributes:
      shift_in: `nnx.Param`, (features,), the :math:`\gamma`; 0 at first.
      shift_out: `nnx.Param`, (features,), the :math:`\zeta`; 0 at first.
      negative_slope: `nnx.Param`, (features,), the :math:`\beta`.

    Example:
      >>> import jax.numpy as jnp, ovsw_jax as ovsw
      >>> rprelu = ovsw.nn.RPReLU(2)
      >>> rprelu.shift_in[...] = jnp.array([1.0, -1.0])
      >>> rprelu(jnp.array([[-3.0, 3.0]])).tolist()
      [[-1.0, 4.0]]

    Source: Liu et al. 2020, ReActNet.
    """

    def __init__(
        self,
        features: int,
        *,
        negative_slope_init: float = 0.25,
        param_dtype: jax.typing.DTypeLike = jnp.float32,
        rngs: nnx.Rngs | None = None,
    ):
        """Makes the activation.

        Args:
          features: channels, the last axis of the input.
          negative_slope_init: all slopes at first.
          param_dtype: of the parameters.
          rngs: not drawn from, as nothing starts at random; layers are made with one.

        Raises:
          ValueError: if `features` is no positive integer, or the slope not finite.
          TypeError: if the slope is no number, or `param_dtype` not real floating-point.
        """
        del rngs
        _check(features, negative_slope_init, param_dtype)
        self.shift_in = nnx.Param(jnp.zeros(features, param_dtype))
        self.shift_out = nnx.Param(jnp.zeros(features, param_dtype))
        self.negative_slope = nnx.Param(jnp.full(features, negative_slope_init, param_dtype))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Applies the activation; argument, result and errors as for `PReLU`."""
        return rprelu(x, self.shift_in[...], self.shift_out[...], self.negative_slope[...])


def _check(features: int, negative_slope_init: float, param_dtype: jax.typing.DTypeLike) -> None:
    check_counts(features=features)
    check_slope(negative_slope_init, param_dtype)


def check_slope(negative_slope_init: float, param_dtype: jax.typing.DTypeLike) -> None:
    """Raises unless the slope to start from is one finite number.

    Raises:
      ValueError: if it is not finite in `param_dtype`.
      TypeError: if it is no real number, or `param_dtype` not real floating-point.
    """
    slope = known_number("negative_slope_init", negative_slope_init)
    check_floating_dtype(param_dtype=param_dtype)
    if not abs(slope) <= float(jnp.finfo(param_dtype).max):
        raise ValueError(
            f"negative_slope_init={slope:g} is out of range: it must be finite in "
            f"{jnp.dtype(param_dtype)}. Use 0.25, as PReLU's authors do, or 0 to start as a "
            "rectifier."
        )


def prelu(x: jax.Array, slope: jax.Array) -> jax.Array:
    """PReLU of (..., features) with (features,) slopes, in the dtype of `x`."""
    x = check_channels(x, slope)
    dtype = accurate_dtype(x, slope)
    return _rectify(x.astype(dtype), along_features(slope.astype(dtype), x)).astype(x.dtype)


def rprelu(x: jax.Array, shift_in: jax.Array, shift_out: jax.Array, slope: jax.Array) -> jax.Array:
    """RPReLU of (..., features) with (features,) parameters, in the dtype of `x`."""
    x = check_channels(x, slope)
    dtype = accurate_dtype(x, slope)
    shift_in, shift_out, slope = (
        along_features(p.astype(dtype), x) for p in (shift_in, shift_out, slope)
    )
    return (_rectify(x.astype(dtype) - shift_in, slope) + shift_out).astype(x.dtype)


def _rectify(x: jax.Array, slope: jax.Array) -> jax.Array:
    return jnp.where(x > 0, x, slope * x)
