"""A sign whose pseudo-gradient sharpens as training proceeds, by a number in the model."""

import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from ovsw_jax.hyperparams import check_sharpness, known_number
from ovsw_jax.nn.sign_kinds import delegates_to_sign, keeping_flips
from ovsw_jax.nn.signs import tanh_sign

SharpenedBy = Callable[[jax.Array, jax.typing.ArrayLike], jax.Array]


@delegates_to_sign
@keeping_flips
class SharpeningSign(nnx.Module):
    r"""Sign whose pseudo-gradient has a sharpness that is set between steps.

    .. math::
      y = \operatorname{sign}(x), \text{ with the pseudo-gradient of } \operatorname{sign} \text{ at
      this sharpness}

    The sharpness is an array of the model, so a compiled step takes it as it is. A Python number,
    as in `partial(tanh_sign, sharpness=0.1)`, would compile the step again for each value. It is no
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
          sign: a function of x and the sharpness: `tanh_sign`, `swish_sign`, or one of your own
            from `sign_with_gradient`.
          rngs: not drawn from, as nothing starts at random; layers are made with one.

        Raises:
          ValueError: if the sharpness is not above 0 and finite.
          TypeError: if it is no number, or `sign` can't be called with x and a sharpness.
        """
        del rngs
        check_sharpening(sharpness, sign)
        self.sharpness = nnx.Variable(jnp.asarray(sharpness, jnp.float32))
        self.sign = sign

    def __setattr__(self, name: str, value: Any) -> None:
        """Sets a number for the sharpness in its Variable, as `sharpness[...] =` does."""
        is_number = isinstance(value, int | float | np.generic)
        if name == "sharpness" and is_number:
            check_sharpness(name, known_number(name, value))
            self.sharpness[...] = value
        else:
            super().__setattr__(name, value)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Applies the sign to a real array; +1 or -1, shape and dtype of `x`."""
        return sharpened(self.sign, x, self.sharpness[...])


def check_sharpening(sharpness: float, sign: object) -> None:
    """Raises unless `sharpness` is a number above 0, and `sign` a function of x and it.

    Raises:
      ValueError: if the sharpness is not above 0 and finite.
      TypeError: if it is no number, or `sign` can't be called with x and a sharpness.
    """
    check_sharpness("sharpness", known_number("sharpness", sharpness))
    if not _takes_two(sign):
        raise TypeError(
            f"sign={sign!r} is no function of x and the sharpness: use ovsw.nn.tanh_sign, "
            "ovsw.nn.swish_sign, or one from ovsw.nn.sign_with_gradient."
        )


def sharpened(sign: SharpenedBy, x: jax.Array, sharpness: jax.Array) -> jax.Array:
    """The sign of `x` at a sharpness; ValueError if a user's sign gives another shape."""
    y = sign(x, sharpness)
    if jnp.shape(y) != jnp.shape(x):
        raise ValueError(
            f"sign={sign!r} gave shape {jnp.shape(y)} for x of shape {jnp.shape(x)}: it must give "
            "a sign for each element of x."
        )
    return y


def _takes_two(function: Any) -> bool:
    """Whether it can be called with two arguments, as far as its signature is known."""
    if not callable(function):
        return False
    try:
        inspect.signature(function).bind(None, None)
    except TypeError:
        return False
    except ValueError:  # a builtin without a signature
        pass
    return True
