"""A sign whose threshold is learned, for Flax linen."""

import jax
import jax.numpy as jnp
from flax import linen

from ovsw_jax.nn._checks import channels, check_floating_dtype
from ovsw_jax.nn.sign_kinds import Sign, delegates_to_sign
from ovsw_jax.nn.signs import approx_sign
from ovsw_jax.nn.threshold import threshold_sign


@delegates_to_sign
class LearnedThresholdSign(linen.Module):
    """Sign with a learned threshold for each channel (ReActNet's RSign).

    As `ovsw_jax.nn.LearnedThresholdSign`: sign(x - threshold), the threshold 0 at first.

    Attributes:
      sign: the sign of what is left, with its pseudo-gradient.
      param_dtype: of the thresholds.

    Example:
      >>> import jax, jax.numpy as jnp, ovsw_jax as ovsw
      >>> sign = ovsw.linen.LearnedThresholdSign()
      >>> dense = ovsw.linen.BinaryDense(4, input_sign=sign, normalize_input=False)
      >>> variables = dense.init(jax.random.key(0), jnp.ones((8, 3)), train=False)
      >>> variables["params"]["input_sign"]["threshold"].tolist()
      [0.0, 0.0, 0.0]

    Source: Liu et al. 2020, ReActNet.
    """

    sign: Sign = approx_sign
    param_dtype: jax.typing.DTypeLike = jnp.float32

    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """(..., features) to +1 or -1 of the same shape and dtype; errors as in NNX."""
        zeros = linen.initializers.zeros_init()
        check_floating_dtype(param_dtype=self.param_dtype)
        if not callable(self.sign):
            raise TypeError(f"sign={self.sign!r} is no function: use one such as approx_sign.")
        threshold = self.param("threshold", zeros, (channels(x),), self.param_dtype)
        return threshold_sign(x, threshold, self.sign)
