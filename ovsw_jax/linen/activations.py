"""Activations with learned parameters for each channel, for Flax linen."""

import jax
import jax.numpy as jnp
from flax import linen

from ovsw_jax.nn._checks import channels
from ovsw_jax.nn.activations import check_slope, prelu, rprelu


class PReLU(linen.Module):
    """Rectifier with a learned slope for each channel; `flax.linen.PReLU` has one for all.

    As `ovsw_jax.nn.PReLU`.

    Attributes:
      negative_slope_init: all slopes at first.
      param_dtype: of the slopes.

    Example:
      >>> import jax, jax.numpy as jnp, ovsw_jax as ovsw
      >>> y, variables = ovsw.linen.PReLU().init_with_output(jax.random.key(0), jnp.full(2, -4.0))
      >>> y.tolist()
      [-1.0, -1.0]

    Source: He et al. 2015, Delving Deep into Rectifiers; behind binary layers: Bulat et al. 2019.
    """

    negative_slope_init: float = 0.25
    param_dtype: jax.typing.DTypeLike = jnp.float32

    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """(..., features) to the same shape and dtype; errors as in NNX."""
        check_slope(self.negative_slope_init, self.param_dtype)
        start = linen.initializers.constant(self.negative_slope_init)
        return prelu(x, self.param("negative_slope", start, (channels(x),), self.param_dtype))


class RPReLU(linen.Module):
    """PReLU whose kink is learned, one place and one slope for each channel (ReActNet).

    As `ovsw_jax.nn.RPReLU`, with the same names of parameters.

    Attributes:
      negative_slope_init: all slopes at first; the shifts start at 0.
      param_dtype: of the parameters.

    Example:
      >>> import jax, jax.numpy as jnp, ovsw_jax as ovsw
      >>> y, variables = ovsw.linen.RPReLU().init_with_output(jax.random.key(0), jnp.full(2, -4.0))
      >>> sorted(variables["params"])
      ['negative_slope', 'shift_in', 'shift_out']

    Source: Liu et al. 2020, ReActNet.
    """

    negative_slope_init: float = 0.25
    param_dtype: jax.typing.DTypeLike = jnp.float32

    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """(..., features) to the same shape and dtype; errors as in NNX."""
        check_slope(self.negative_slope_init, self.param_dtype)
        zeros = linen.initializers.zeros_init()
        start = linen.initializers.constant(self.negative_slope_init)
        shape, dtype = (channels(x),), self.param_dtype
        shift_in = self.param("shift_in", zeros, shape, dtype)
        shift_out = self.param("shift_out", zeros, shape, dtype)
        return rprelu(x, shift_in, shift_out, self.param("negative_slope", start, shape, dtype))
