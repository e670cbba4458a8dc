"""Signs of kernels that look at a whole filter: its magnitude, or its mean."""

import jax

from ovsw_jax.nn._kernels.features import along_features
from ovsw_jax.nn.scale import mean_magnitude, standardize_kernel
from ovsw_jax.nn.sign_kinds import Sign, delegates_to_sign, with_factor
from ovsw_jax.nn.signs import clipped_ste_sign, ste_sign


@with_factor
def magnitude_aware_sign(kernel: jax.Array) -> jax.Array:
    r"""Sign of latent weights times the mean magnitude of their filter.

    .. math::
      \alpha_i \operatorname{sign} W_i, \quad \alpha_i = \operatorname{mean} |W_i|

    Pseudo-gradient :math:`\alpha_i` where :math:`|W| \le 1`, else 0;
    :math:`\alpha_i` is held constant. It is in the weights already, so the layer takes
    `scale=None`.

    Args:
      kernel: latent weights, (..., out_features).

    Returns:
      Array of the shape and dtype of `kernel`.

    >>> import jax.numpy as jnp
    >>> magnitude_aware_sign(jnp.array([[1.0, -0.5], [-3.0, 0.0]])).tolist()
    [[2.0, -0.25], [-2.0, 0.25]]

    Source: Liu et al. 2018, Bi-Real Net.
    """
    return along_features(mean_magnitude(kernel), kernel) * clipped_ste_sign(kernel)


@delegates_to_sign
def standardized_sign(kernel: jax.Array, sign: Sign = ste_sign) -> jax.Array:
    r"""Sign of standardised latent weights.

    .. math::
      \operatorname{sign} \hat W, \quad \hat W = \operatorname{standardize}(W)

    With mean 0, about half the weights of each filter are +1. The gradient runs through `sign` and
    the standardisation, so it has mean 0 over a filter.

    `ovsw.sad` and `ovsw.track_flip_state` watch the sign of the latent weight W, not that of
    W - mean W, which the layer multiplies. They agree as long as the means stay near 0; gradients
    with mean 0 don't move them, weight decay and noise do.

    Args:
      kernel: latent weights, (..., out_features).
      sign: the sign, with its pseudo-gradient.

    Returns:
      +1 or -1; shape and dtype of `kernel`.

    >>> import jax.numpy as jnp
    >>> standardized_sign(jnp.array([[1.0], [2.0], [6.0]])).ravel().tolist()
    [-1.0, -1.0, 1.0]

    Source: Qin et al. 2020, IR-Net; standardisation as in Qiao et al. 2019.
    """
    if not callable(sign):
        raise TypeError(f"sign={sign!r} is no function: use one such as ovsw.nn.ste_sign.")
    return sign(standardize_kernel(kernel))
