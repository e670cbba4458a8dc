"""A sign whose pseudo-gradient sharpens as training goes on, by a number in the model."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx

from ovsw_jax.hyperparams import known_number
from ovsw_jax.nn.signs import tanh_sign

SharpenedBy = Callable[[jax.Array, jax.typing.ArrayLike], jax.Array]


class SharpeningSign(nnx.Module):
    r"""Sign whose pseudo-gradient has a sharpness that is set between steps.

    .. math::
      y = \operatorname{sign}(x), \text{ with the pseudo-gradient of } \operatorname{sign} \text{ at
      this sharpness}

    The sharpness is an array of the model, so a compiled step takes it as it is. A Python number,
    as in `partial(tanh_sign, sharpness=0.1)`, would compile the step anew for each value. It is no
    `nnx.Param`: optimizers leave it alone. Give all layers the same object, as their `input_sign`
    or `kernel_sign`, and one assignment reaches them all.

    Attributes:
      sharpness: `nnx.Variable`, (), float32.

    Example:
      >>> import jax, ovsw_jax as ovsw
      >>> sign = ovsw.nn.SharpeningSign(0.1)
      >>> sign.sharpness[...] = 10.0
      >>> jax.grad(sign)(0.0).item()
      10.0

    Source: Qin et al. 2020, IR-Net (error decay estimator).
    """

    hands_on_to_sign = True  # so its results are +1 and -1 if those of `sign` are
    keeps_flips = True  # its state moves no sign, so flips are those of the latent weight

    def __init__(
        self,
        sharpness: float = 1.0,
        *,
        sign: SharpenedBy = tanh_sign,
        rngs: nnx.Rngs | None = None,
    ):
        """Makes the sign.

        Args:
          sharpness: at first, above 0.
          sign: a function of x and the sharpness, `tanh_sign` or `swish_sign`.
          rngs: not drawn from, as nothing starts at random; layers are made with one.

        Raises:
          ValueError: if the sharpness is not above 0 and finite.
          TypeError: if it is no number, or `sign` can't be called.
        """
        del rngs
        check_sharpening(sharpness, sign)
        self.sharpness = nnx.Variable(jnp.asarray(sharpness, jnp.float32))
        self.sign = sign

    def __call__(self, x: jax.Array) -> jax.Array:
        """Applies the sign to a real array; +1 or -1, shape and dtype of `x`."""
        return self.sign(x, self.sharpness[...])


def check_sharpening(sharpness: float, sign: object) -> None:
    """Raises unless `sharpness` is a number above 0, and `sign` a function.

    Raises:
      ValueError: if the sharpness is not above 0 and finite.
      TypeError: if it is no number, or `sign` can't be called.
    """
    if not 0 < known_number("sharpness", sharpness) <= float(jnp.finfo(jnp.float32).max):
        raise ValueError(
            f"sharpness={sharpness:g} must be above 0 and finite: IR-Net starts at 0.1 and ends at "
            "10."
        )
    if not callable(sign):
        raise TypeError(
            f"sign={sign!r} is no function of x and the sharpness: use ovsw.nn.tanh_sign or "
            "ovsw.nn.swish_sign."
        )
