"""A binarised matrix product over several axes, named and called as `nnx.LinearGeneral`."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from ovsw_jax.nn._kernels.arithmetic import binary_dense
from ovsw_jax.nn._kernels.features import axes_of, features_last, sizes
from ovsw_jax.nn.layers import _BinaryLayer, kaiming_normal
from ovsw_jax.nn.scale import Scale
from ovsw_jax.nn.sign_kinds import Sign
from ovsw_jax.nn.signs import approx_sign, ste_sign


class BinaryLinearGeneral(_BinaryLayer):
    r"""`BinaryDense` of several axes of features, as the projections of attention have them.

    .. math::
      y = (\operatorname{sign}(x) \operatorname{sign}(W) + b) \alpha

    The product sums over the axes `axis` of the input, and puts those of `out_features` last. It is
    that of a `BinaryDense` whose input and output are reshaped: one sample is one vector of all
    input features, and there is a factor for each output feature. `ovsw.binarize` puts it in the
    place of an `nnx.LinearGeneral`.

    Attributes:
      latent_kernel: `nnx.Param`, (*in_features, *out_features); called `kernel` without a sign.
      bias: `nnx.Param`, (*out_features,), or None.
      filter_scale: `nnx.Param`, (*out_features,), the learned factor; None unless asked for.
      kernel_shape: shape of the kernel.
      filter_axes: axes of one filter in it, those of the input, for `ovsw.filter_axes`.

    Example:
      >>> import jax.numpy as jnp, ovsw_jax as ovsw
      >>> from flax import nnx
      >>> heads = ovsw.nn.BinaryLinearGeneral(8, (2, 4), rngs=nnx.Rngs(0))
      >>> heads(jnp.ones((3, 5, 8))).shape
      (3, 5, 2, 4)

    Source: as `BinaryConv`.
    """

    def __init__(
        self,
        in_features: int | Sequence[int],
        out_features: int | Sequence[int],
        *,
        axis: int | Sequence[int] = -1,
        use_bias: bool = False,
        scale: Scale = "standardized",
        input_sign: Sign | nnx.Module | None = approx_sign,
        kernel_sign: Sign | None = ste_sign,
        normalize_input: bool = True,
        kernel_init: nnx.Initializer = kaiming_normal,
        bias_init: nnx.Initializer = nnx.initializers.zeros_init(),
        dtype: jax.typing.DTypeLike | None = None,
        param_dtype: jax.typing.DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        """Makes the layer; the arguments are those of `BinaryConv`.

        Args:
          in_features: sizes of the axes of the input that are summed over.
          out_features: sizes of the axes of the output that take their place, at its end.
          axis: which axes of the input these are, one for each size.
          use_bias: adds a bias, before the factor.
          scale: `"standardized"`, `"learned"`, a function of the kernel with its axes joined to
            (in, out), or None.
          input_sign: sign of the activations, or None. A `LearnedThresholdSign` has a threshold for
            each of all input features, `math.prod(in_features)`.
          kernel_sign: sign of the latent weights, or None.
          normalize_input: divide each sample by its standard deviation in training.
          kernel_init: initialiser of the latent weights, as (in, out).
          bias_init: initialiser of the bias.
          dtype: of the products and the output.
          param_dtype: of the parameters.
          rngs: random state, for `params`.

        Raises:
          ValueError: if a number of features is no positive integer, `axis` has not one entry for
            each size, `scale` is unknown, or the signs are not as in `BinaryConv`.
        """
        self.in_features = sizes("in_features", in_features)
        self.out_features = sizes("out_features", out_features)
        self.axis = axes_of(axis)
        if len(self.axis) != len(self.in_features) or len({*self.axis}) < len(self.axis):
            raise ValueError(
                f"axis={axis!r} must name a different axis of the input for each of "
                f"in_features={in_features!r}."
            )
        super().__init__(
            (math.prod(self.in_features), math.prod(self.out_features)),
            use_bias=use_bias,
            scale=scale,
            input_sign=input_sign,
            kernel_sign=kernel_sign,
            normalize_input=normalize_input,
            kernel_init=kernel_init,
            bias_init=bias_init,
            dtype=dtype,
            param_dtype=param_dtype,
            rngs=rngs,
        )
        self.kernel_shape = (*self.in_features, *self.out_features)
        self.filter_axes = tuple(range(len(self.in_features)))
        kernel = self.kernel if kernel_sign is None else self.latent_kernel
        kernel.set_value(kernel[...].reshape(self.kernel_shape))
        for of_filters in (self.bias, self.filter_scale):
            if of_filters is not None:
                of_filters.set_value(of_filters[...].reshape(self.out_features))

    def _filters(self) -> jax.Array:
        return super()._filters().reshape(-1, math.prod(self.out_features))

    def _by_filter(self, parameter: nnx.Param[Any] | None) -> jax.Array | None:
        return None if parameter is None else parameter[...].ravel()

    def __call__(self, x: jax.Array, out_sharding: Any = None) -> jax.Array:
        """Applies the layer.

        Args:
          x: array whose axes `axis` have the sizes `in_features`; any number of other axes.
          out_sharding: must be None; `nnx.MultiHeadAttention` passes it.

        Returns:
          (..., *out_features), the other axes of `x` in front.

        Raises:
          ValueError: if `x` has other features, or `out_sharding` is given.
        """
        if out_sharding is not None:
            raise ValueError(
                f"out_sharding={out_sharding!r} can't be given to a binary layer: constrain its "
                "output by jax.lax.with_sharding_constraint instead."
            )
        x = features_last(x, self.in_features, self.axis)
        y = binary_dense(**self._arguments(x))
        return y.reshape(*x.shape[:-1], *self.out_features)
