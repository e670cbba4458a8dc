"""A binarised matrix product over several axes for Flax linen, called as `linen.DenseGeneral`."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import linen

from ovsw_jax.linen.layers import Initializer, _BinaryLayer
from ovsw_jax.nn._kernels.arithmetic import binary_dense
from ovsw_jax.nn._kernels.features import axes_of, features_last, sizes
from ovsw_jax.nn.layers import kaiming_normal
from ovsw_jax.nn.scale import Scale
from ovsw_jax.nn.sign_kinds import Sign
from ovsw_jax.nn.signs import approx_sign, ste_sign


class BinaryDenseGeneral(_BinaryLayer):
    """`BinaryDense` of several axes of features, as the projections of attention have them.

    As `ovsw_jax.nn.BinaryLinearGeneral`, with the same parameters and names.

    Attributes:
      features: sizes of the axes of the output, at its end.
      axis: which axes of the input are summed over.
      use_bias: adds a bias, before the factor.
      scale: `"standardized"`, `"learned"`, a function of the kernel with its axes joined to
        (in, out), or None.
      input_sign: sign of the activations, a module such as `LearnedThresholdSign`, or None.
      kernel_sign: sign of the latent weights, or None.
      normalize_input: divide each sample by its standard deviation in training.
      kernel_init: initialiser of the latent weights, as (in, out).
      bias_init: initialiser of the bias.
      dtype: of the products and the output; None: that of input and parameters.
      param_dtype: of the parameters.
      train: whether to divide, where the call does not say so.

    Example:
      >>> import jax, jax.numpy as jnp, ovsw_jax as ovsw
      >>> heads = ovsw.linen.BinaryDenseGeneral((2, 4))
      >>> variables = heads.init(jax.random.key(0), jnp.ones((3, 5, 8)), train=False)
      >>> variables["params"]["latent_kernel"].shape
      (8, 2, 4)

    Source: as `BinaryConv`.
    """

    features: int | Sequence[int]
    axis: int | Sequence[int] = -1
    use_bias: bool = False
    scale: Scale = "standardized"
    input_sign: Sign | linen.Module | None = approx_sign
    kernel_sign: Sign | None = ste_sign
    normalize_input: bool = True
    kernel_init: Initializer = kaiming_normal
    bias_init: Initializer = linen.initializers.zeros_init()
    dtype: jax.typing.DTypeLike | None = None
    param_dtype: jax.typing.DTypeLike = jnp.float32
    train: bool | None = None

    @linen.compact
    def __call__(self, x: jax.Array, train: bool | None = None) -> jax.Array:
        """Applies the layer.

        Args:
          x: array with the axes `axis`, and any number of others.
          train: divides every sample by its standard deviation first; here or as an attribute.

        Returns:
          (..., *features), the other axes of `x` in front.

        Raises:
          ValueError: if `x` has no such axes, or as `BinaryDense`.
          TypeError: if `train` is traced.
        """
        axis, outputs = axes_of(self.axis), sizes("features", self.features)
        joined = features_last(x, None, axis)
        inputs = tuple(x.shape[a] for a in axis)
        y = binary_dense(
            **self._arguments(
                joined,
                (joined.shape[-1], math.prod(outputs)),
                stored=((*inputs, *outputs), outputs),
            ),
            normalize=self.normalize_input,
            training=self._is_training(train),
        )
        return y.reshape(*joined.shape[:-1], *outputs)
