"""A sign whose threshold is learned: one for each channel."""

import jax
import jax.numpy as jnp
from flax import nnx

from ovsw_jax.nn._checks import check_channels, check_counts, check_floating_dtype
from ovsw_jax.nn._kernels.features import along_features
from ovsw_jax.nn.sign_kinds import Sign, delegates_to_sign
from ovsw_jax.nn.signs import approx_sign
from ovsw_jax.precision import accurate_dtype


@delegates_to_sign
class LearnedThresholdSign(nnx.Module):
    r"""Sign with a learned threshold for each channel (ReActNet's RSign).

    .. math::
      y = \operatorname{sign}(x - \theta)

    The pseudo-gradient is that of `sign` at :math:`x - \theta`; for :math:`\theta` it is the
    negative of the same, summed over all but the channels. Use it as the `input_sign` of a layer,
    with `normalize_input=False`, or on its own.

    Attributes:
      threshold: `nnx.Param`, (features,), the :math:`\theta`; 0 at first.

    Example:
      >>> import jax.numpy as jnp, ovsw_jax as ovsw
      >>> from flax import nnx
      >>> sign = ovsw.nn.LearnedThresholdSign(2, rngs=nnx.Rngs(0))
      >>> sign.threshold[...] = jnp.array([0.5, -0.5])
      >>> sign(jnp.array([[0.2, 0.2], [0.5, -0.7]])).tolist()
      [[-1.0, 1.0], [1.0, -1.0]]

    Source: Liu et al. 2020, ReActNet.
    """

    def __init__(
        self,
        features: int,
        *,
        sign: Sign = approx_sign,
        param_dtype: jax.typing.DTypeLike = jnp.float32,
        rngs: nnx.Rngs | None = None,
    ):
        """Makes the sign, with all thresholds 0.

        Args:
          features: channels, the last axis of the input.
          sign: the sign of what is left, with its pseudo-gradient.
          param_dtype: of the thresholds.
          rngs: not drawn from, as nothing starts at random; layers are made with one.

        Raises:
          ValueError: if `features` is no positive integer.
          TypeError: if `sign` can't be called, or `param_dtype` is not real floating-point.
        """
        del rngs
        check_counts(features=features)
        check_floating_dtype(param_dtype=param_dtype)
        if not callable(sign):
            raise TypeError(f"sign={sign!r} is no function: use one such as ovsw.nn.approx_sign.")
        self.threshold = nnx.Param(jnp.zeros(features, param_dtype))
        self.sign = sign

    def __call__(self, x: jax.Array) -> jax.Array:
        """Applies the sign.

        Args:
          x: (..., features), real floating-point.

        Returns:
          +1 or -1; shape and dtype of `x`. The difference is taken in float32 at least.

        Raises:
          ValueError: if the last axis of `x` has another size.
          TypeError: if `x` is not real floating-point.
        """
        return threshold_sign(x, self.threshold[...], self.sign)


def threshold_sign(x: jax.Array, threshold: jax.Array, sign: Sign) -> jax.Array:
    """sign(x - threshold) in the dtype of `x`; arguments as for `LearnedThresholdSign`."""
    x = check_channels(x, threshold)
    wide = x.astype(accurate_dtype(x, threshold))
    return sign(wide - along_features(threshold.astype(wide.dtype), wide)).astype(x.dtype)
