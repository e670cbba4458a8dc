"""Binarised Flax linen layers, named and called as `linen.Conv` and `linen.Dense`."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen

from ovsw_jax.hyperparams import check_flag
from ovsw_jax.linen.threshold import LearnedThresholdSign
from ovsw_jax.nn._checks import check_counts, check_floating_dtype, check_signs
from ovsw_jax.nn._kernels.arithmetic import (
    binary_conv,
    binary_dense,
    check_input,
    result_dtype,
)
from ovsw_jax.nn._kernels.convolution import Padding, make_window
from ovsw_jax.nn.layers import kaiming_normal
from ovsw_jax.nn.scale import Scale, check_scale, factor, initial_scale
from ovsw_jax.nn.sign_kinds import Sign
from ovsw_jax.nn.signs import approx_sign, ste_sign

Initializer = Callable[..., jax.Array]


class _BinaryLayer(linen.Module):
    """What BinaryConv and BinaryDense share: parameters and factor."""

    def _arguments(
        self: Any,
        x: jax.Array,
        kernel_shape: tuple[int, ...],
        stored: tuple[tuple[int, ...], tuple[int, ...]] | None = None,
    ) -> dict[str, Any]:
        """What the arithmetic takes.

        Args:
          x: the input.
          kernel_shape: (..., filters), in which the kernel starts and is used.
          stored: shapes of the parameters, if others: of the kernel, and of one number per filter.
        """
        check_scale(self.scale, self.kernel_sign)
        check_signs(
            self.input_sign,
            self.kernel_sign,
            self.scale,
            normalize_input=self.normalize_input,
            threshold=LearnedThresholdSign,
        )
        check_floating_dtype(dtype=self.dtype, param_dtype=self.param_dtype)
        name = "kernel" if self.kernel_sign is None else "latent_kernel"
        of_kernel, of_filters = stored or (kernel_shape, kernel_shape[-1:])

        def initial_kernel(key: jax.Array) -> Any:
            made = self.kernel_init(key, kernel_shape, self.param_dtype)
            return jax.tree.map(lambda x: x.reshape(of_kernel), made)  # it may be in a box

        kernel = self.param(name, initial_kernel).reshape(kernel_shape)
        bias = learned = None
        if self.use_bias:
            bias = self.param("bias", self.bias_init, of_filters, self.param_dtype).ravel()
        if self.scale == "learned":
            learned = self.param(
                "filter_scale",
                lambda _: initial_scale(kernel, self.kernel_sign).reshape(of_filters),
            ).ravel()
        return {
            "x": x,
            "latent": kernel,
            "bias": bias,
            "scale": factor(self.scale, kernel, learned, self.kernel_sign),
            "input_sign": self.input_sign,
            "kernel_sign": self.kernel_sign,
            "dtype": result_dtype(x, kernel, self.dtype),
        }

    def _is_training(self: Any, train: bool | None) -> bool:
        train = linen.merge_param("train", self.train, train)
        if isinstance(train, jax.core.Tracer):
            raise TypeError(
                "train is traced, but chooses what is compiled: set it on the layer, as in "
                f"{type(self).__name__}(..., train=True), or keep it static, as in "
                "linen.remat(..., static_argnums=2) with train as the second argument of the call."
            )
        check_flag("train", train)
        return bool(train)


class BinaryConv(_BinaryLayer):
    """Convolution of the signs of its input with the signs of its latent weights.

    The arithmetic, the parameters and their names are those of `ovsw_jax.nn.BinaryConv`. Train with
    `train=True`: without the division the inputs of a sign may all be outside the window of its
    gradient, and then no layer in front of it gets one.

    Attributes:
      features: channels of the output, the number of filters.
      kernel_size: an integer for one spatial axis, or one entry per spatial axis.
      strides: an integer, or one entry per spatial axis.
      padding: as for `ovsw_jax.nn.BinaryConv`.
      kernel_dilation: an integer, or one entry per spatial axis.
      feature_group_count: groups.
      use_bias: adds a bias, before the factor.
      scale: `"standardized"`, `"learned"`, a function of the kernel, or None.
      input_sign: sign of the activations, a module such as `LearnedThresholdSign`, or None.
      kernel_sign: sign of the latent weights, or None.
      normalize_input: divide each sample by its standard deviation in training.
      kernel_init: initialiser of the latent weights.
      bias_init: initialiser of the bias.
      dtype: of the products and the output; None: that of input and parameters.
      param_dtype: of the parameters.
      train: whether to divide, where the call does not say so.

    Example:
      >>> import jax, jax.numpy as jnp, ovsw_jax as ovsw
      >>> conv = ovsw.linen.BinaryConv(32, (3, 3), strides=2)
      >>> x = jnp.ones((8, 28, 28, 16))
      >>> variables = conv.init(jax.random.key(0), x, train=False)
      >>> conv.apply(variables, x, train=True).shape
      (8, 14, 14, 32)

    Source: OvSW (Xiang et al., ECCV 2024), Fig. 7.
    """

    features: int
    kernel_size: int | Sequence[int]
    strides: int | Sequence[int] = 1
    padding: Padding = "SAME"
    kernel_dilation: int | Sequence[int] = 1
    feature_group_count: int = 1
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
          x: (*batch, *spatial, in_features), with any number of batch axes.
          train: divides every sample by its standard deviation first; here or as an attribute.

        Returns:
          (*batch, *spatial', features).

        Raises:
          ValueError: as `ovsw_jax.nn.BinaryConv`, or if `train` is given twice or not at all.
          TypeError: if `train` is traced.
        """
        check_counts(features=self.features)
        x = check_input(x, None, min_rank=1)
        window = make_window(
            x.shape[-1],
            self.features,
            self.kernel_size,
            self.strides,
            self.padding,
            self.kernel_dilation,
            self.feature_group_count,
        )
        x = check_input(x, None, min_rank=len(window.kernel_size) + 1)
        in_features = x.shape[-1] // self.feature_group_count
        arguments = self._arguments(x, (*window.kernel_size, in_features, self.features))
        return binary_conv(
            **arguments,
            window=window,
            normalize=self.normalize_input,
            training=self._is_training(train),
        )


class BinaryDense(_BinaryLayer):
    """Matrix product of the signs of its input with the signs of its latent weights.

    Attributes:
      features: features of the output.
      use_bias: adds a bias, before the factor.
      scale: `"standardized"`, `"learned"`, a function of the kernel, or None.
      input_sign: sign of the activations, a module such as `LearnedThresholdSign`, or None.
      kernel_sign: sign of the latent weights, or None.
      normalize_input: divide each sample by its standard deviation in training.
      kernel_init: initialiser of the latent weights.
      bias_init: initialiser of the bias.
      dtype: of the products and the output; None: that of input and parameters.
      param_dtype: of the parameters.
      train: whether to divide, where the call does not say so.

    Example:
      >>> import jax, jax.numpy as jnp, ovsw_jax as ovsw
      >>> dense = ovsw.linen.BinaryDense(4)
      >>> variables = dense.init(jax.random.key(0), jnp.ones((8, 3)), train=False)
      >>> variables["params"]["latent_kernel"].shape
      (3, 4)

    Source: as `BinaryConv`.
    """

    features: int
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
          x: (..., in_features).
          train: divides every sample by its standard deviation first; here or as an attribute.

        Returns:
          (..., features).

        Raises:
          ValueError: as `ovsw_jax.nn.BinaryDense`, or if `train` is given twice or not at all.
          TypeError: if `train` is traced.
        """
        check_counts(features=self.features)
        x = check_input(x, None, min_rank=1)
        return binary_dense(
            **self._arguments(x, (x.shape[-1], self.features)),
            normalize=self.normalize_input,
            training=self._is_training(train),
        )
