"""A sign whose pseudo-gradient sharpens as training proceeds, for Flax linen."""

import jax
import jax.numpy as jnp
from flax import linen

from ovsw_jax.nn.sharpening import SharpenedBy, check_sharpening, sharpened
from ovsw_jax.nn.sign_kinds import delegates_to_sign, keeping_flips
from ovsw_jax.nn.signs import tanh_sign


@delegates_to_sign
@keeping_flips
class SharpeningSign(linen.Module):
    """Sign whose pseudo-gradient has a sharpness that is set between steps.

    As `ovsw_jax.nn.SharpeningSign`. The sharpness of each layer is in the collection `"sharpness"`
    of the variables, which a compiled step takes as an argument.

    Attributes:
      sharpness: at first, above 0.
      sign: a function of x and the sharpness: `tanh_sign`, `swish_sign`, or one of your own from
        `sign_with_gradient`.

    Example:
      >>> import jax, jax.numpy as jnp, ovsw_jax as ovsw
      >>> dense = ovsw.linen.BinaryDense(4, input_sign=ovsw.linen.SharpeningSign(0.1), train=True)
      >>> variables = dense.init(jax.random.key(0), jnp.ones((8, 3)))
      >>> sharper = jax.tree.map(lambda t: jnp.full_like(t, 10.0), variables["sharpness"])
      >>> variables = {**variables, "sharpness": sharper}
      >>> variables["sharpness"]["input_sign"]["sharpness"].item()
      10.0

    Source: Qin et al. 2020, IR-Net (error decay estimator).
    """

    sharpness: float = 1.0
    sign: SharpenedBy = tanh_sign

    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Applies the sign to a real array; errors as in NNX."""
        check_sharpening(self.sharpness, self.sign)
        start = jnp.float32(self.sharpness)
        sharpness = self.variable("sharpness", "sharpness", lambda: start).value
        return sharpened(self.sign, x, sharpness)
