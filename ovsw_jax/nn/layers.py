"""Binarised Flax NNX layers, named and called as `nnx.Conv` and `nnx.Linear`."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from ovsw_jax.hyperparams import check_flag
from ovsw_jax.nn._checks import check_counts, check_floating_dtype, check_signs
from ovsw_jax.nn._kernels.arithmetic import (
    binary_conv,
    binary_dense,
    check_input,
    result_dtype,
)
from ovsw_jax.nn._kernels.convolution import Padding, make_window
from ovsw_jax.nn.scale import Scale, check_scale, factor, initial_scale
from ovsw_jax.nn.sign_kinds import Sign
from ovsw_jax.nn.signs import approx_sign, ste_sign
from ovsw_jax.nn.threshold import LearnedThresholdSign

kaiming_normal = nnx.initializers.variance_scaling(2.0, "fan_in", "normal")


class _BinaryLayer(nnx.Module):
    """What BinaryConv and BinaryDense share: parameters, factor and the train/eval switch."""

    def __init__(
        self,
        kernel_shape: tuple[int, ...],
        *,
        use_bias: bool,
        scale: Scale,
        input_sign: Sign | nnx.Module | None,
        kernel_sign: Sign | None,
        normalize_input: bool,
        kernel_init: nnx.Initializer,
        bias_init: nnx.Initializer,
        dtype: jax.typing.DTypeLike | None,
        param_dtype: jax.typing.DTypeLike,
        rngs: nnx.Rngs,
    ):
        check_scale(scale, kernel_sign)
        check_signs(
            input_sign,
            kernel_sign,
            scale,
            normalize_input=normalize_input,
            threshold=LearnedThresholdSign,
        )
        check_floating_dtype(dtype=dtype, param_dtype=param_dtype)
        out_features = kernel_shape[-1]
        kernel = nnx.Param(kernel_init(rngs.params(), kernel_shape, param_dtype))
        # By this name the transforms know what is behind a sign: real weights have another.
        if kernel_sign is None:
            self.kernel = kernel
        else:
            self.latent_kernel = kernel
        self.bias = nnx.data(
            nnx.Param(bias_init(rngs.params(), (out_features,), param_dtype)) if use_bias else None
        )
        self.filter_scale = nnx.data(
            nnx.Param(initial_scale(kernel[...], kernel_sign)) if scale == "learned" else None
        )
        self.scale = scale
        self.input_sign, self.kernel_sign = input_sign, kernel_sign
        self.normalize_input = normalize_input
        self.dtype, self.param_dtype = dtype, param_dtype
        self.deterministic = False  # set by model.train(), model.eval() and nnx.view

    def set_view(self, deterministic: bool | None = None) -> None:
        """Called by `nnx.view`, which makes a model that shares its arrays with another.

        Args:
          deterministic: whether to evaluate: the input is not divided by its standard deviation.
        """
        if deterministic is not None:
            check_flag("deterministic", deterministic)
            self.deterministic = deterministic

    def _filters(self) -> jax.Array:
        """The kernel, latent or real, with one entry per filter on its last axis."""
        return (self.kernel if self.kernel_sign is None else self.latent_kernel)[...]

    def _by_filter(self, parameter: nnx.Param[Any] | None) -> jax.Array | None:
        """A parameter with an entry per filter, as the products' last axis has them."""
        return None if parameter is None else parameter[...]

    def _arguments(self, x: jax.Array) -> dict[str, Any]:
        kernel = self._filters()
        learned = self._by_filter(self.filter_scale)
        return {
            "x": x,
            "latent": kernel,
            "bias": self._by_filter(self.bias),
            "scale": factor(self.scale, kernel, learned, self.kernel_sign),
            "input_sign": self.input_sign,
            "kernel_sign": self.kernel_sign,
            "normalize": self.normalize_input,
            "training": not self.deterministic,
            "dtype": result_dtype(x, kernel, self.dtype),
        }


class BinaryConv(_BinaryLayer):
    r"""Convolution of the signs of its input with the signs of its latent weights.

    .. math::
      y = (\operatorname{conv}(\operatorname{sign} x, \operatorname{sign} W) + b) \alpha

    In training the input is first divided by its standard deviation over each sample, which moves
    only the window of the sign's gradient; `model.eval()` omits that, and so does
    `nnx.view(model, deterministic=True, use_running_average=True)`. Zero padding pads the signs. A
    latent weight starts as Kaiming normal, fan-in. Signs would hide a NaN or an infinity: in
    training the output of a sample that holds one is NaN.

    Call `model.train()` before training resumes: in evaluation mode the inputs of a sign may all be
    outside that window, and then no layer in front of it gets a gradient. The only symptom is
    gradients of exactly zero.

    Without one of its signs the layer is binary in its activations alone (`kernel_sign=None`), or
    in its weights alone (`input_sign=None`): then what has no sign is multiplied as it is.

    Attributes:
      latent_kernel: `nnx.Param`, (*kernel_size, in_features // groups, out_features). With
        `kernel_sign=None` it is called `kernel`, and `ovsw.latent_mask` passes over it.
      bias: `nnx.Param`, (out_features,), or None.
      filter_scale: `nnx.Param`, (out_features,), the learned factor; None unless asked for.

    Example:
      >>> import jax.numpy as jnp, ovsw_jax as ovsw
      >>> from flax import nnx
      >>> conv = ovsw.nn.BinaryConv(16, 32, (3, 3), strides=2, rngs=nnx.Rngs(0))
      >>> conv(jnp.ones((8, 28, 28, 16))).shape
      (8, 14, 14, 32)

    Source: OvSW (Xiang et al., ECCV 2024), Fig. 7; standardisation as in the authors' code.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: int | Sequence[int],
        *,
        strides: int | Sequence[int] = 1,
        padding: Padding = "SAME",
        kernel_dilation: int | Sequence[int] = 1,
        feature_group_count: int = 1,
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
        """Makes the layer.

        Args:
          in_features: channels of the input.
          out_features: channels of the output, the number of filters.
          kernel_size: an integer for one spatial axis, or one entry per spatial axis.
          strides: an integer, or one entry per spatial axis.
          padding: `"SAME"`, `"VALID"`, `"CIRCULAR"`, `"REFLECT"`, `"CAUSAL"` (one axis), an
            integer, or (low, high) pairs.
          kernel_dilation: an integer, or one entry per spatial axis.
          feature_group_count: groups; `in_features` groups of one channel are a depthwise
            convolution.
          use_bias: adds a bias, before the factor.
          scale: the factor alpha of each filter. `"standardized"`: mean magnitude of its
            standardised latent weights, without gradient (1 if it has a single weight);
            `"learned"`: a parameter, starting at mean |W| (at 1 for real weights); a function
            from the kernel to (out_features,), such as `ovsw.nn.mean_magnitude`; None: no factor.
          input_sign: sign of the activations, with its pseudo-gradient: a function, or a module
            such as `LearnedThresholdSign`. None: real activations, never normalised.
          kernel_sign: sign of the latent weights, with its pseudo-gradient. None: real weights;
            `scale` must be `"learned"` or None then, and None with a sign that has a factor in it,
            `magnitude_aware_sign`.
          normalize_input: divide each sample by its standard deviation in training. False with a
            `LearnedThresholdSign`, whose input must not differ between training and evaluation.
          kernel_init: initialiser of the latent weights.
          bias_init: initialiser of the bias.
          dtype: of the products and the output; None: that of input and parameters. Signs are
            exact in bfloat16 and their products are summed in float32.
          param_dtype: of the parameters.
          rngs: random state, for `params`.

        Raises:
          ValueError: if `scale` or `padding` is unknown, a number of features or groups is no
            positive integer, the groups don't divide the features, a geometric argument has not
            one entry for each spatial axis, a sign can't be called or both are None, or `scale`
            or `normalize_input` does not go with the signs.
        """
        self.window = make_window(
            in_features,
            out_features,
            kernel_size,
            strides,
            padding,
            kernel_dilation,
            feature_group_count,
        )
        super().__init__(
            (*self.window.kernel_size, in_features // feature_group_count, out_features),
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
        self.in_features, self.out_features = in_features, out_features

    def __call__(self, x: jax.Array) -> jax.Array:
        """Applies the layer.

        Args:
          x: (*batch, *spatial, in_features), with any number of batch axes.

        Returns:
          (*batch, *spatial', out_features).

        Raises:
          ValueError: if `x` has other features or too few axes.
        """
        x = check_input(x, self.in_features, min_rank=len(self.window.kernel_size) + 1)
        return binary_conv(**self._arguments(x), window=self.window)


class BinaryDense(_BinaryLayer):
    r"""Matrix product of the signs of its input with the signs of its latent weights.

    .. math::
      y = (\operatorname{sign}(x) \operatorname{sign}(W) + b) \alpha

    Otherwise as `BinaryConv`; one sample is one vector of features.

    Attributes:
      latent_kernel: `nnx.Param`, (in_features, out_features); called `kernel` if it has no sign.
      bias: `nnx.Param`, (out_features,), or None.
      filter_scale: `nnx.Param`, (out_features,), the learned factor; None unless asked for.

    Example:
      >>> import jax.numpy as jnp, ovsw_jax as ovsw
      >>> from flax import nnx
      >>> dense = ovsw.nn.BinaryDense(3, 2, scale=None, rngs=nnx.Rngs(0))
      >>> dense.latent_kernel[...] = jnp.array([[0.1, 1.0], [0.2, -1.0], [0.3, 1.0]])
      >>> dense(jnp.array([2.0, -5.0, 1.0])).tolist()
      [1.0, 3.0]

    Source: as `BinaryConv`.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
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
          in_features: features of the input.
          out_features: features of the output.
          use_bias: adds a bias, before the factor.
          scale: `"standardized"`, `"learned"`, a function of the kernel, or None.
          input_sign: sign of the activations, a module such as `LearnedThresholdSign`, or None.
          kernel_sign: sign of the latent weights, or None.
          normalize_input: divide each sample by its standard deviation in training.
          kernel_init: initialiser of the latent weights.
          bias_init: initialiser of the bias.
          dtype: of the products and the output.
          param_dtype: of the parameters.
          rngs: random state, for `params`.

        Raises:
          ValueError: if a number of features is no positive integer, `scale` is unknown, or the
            signs are not as in `BinaryConv`.
        """
        check_counts(in_features=in_features, out_features=out_features)
        super().__init__(
            (in_features, out_features),
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
        self.in_features, self.out_features = in_features, out_features

    def __call__(self, x: jax.Array) -> jax.Array:
        """Applies the layer.

        Args:
          x: (..., in_features).

        Returns:
          (..., out_features).

        Raises:
          ValueError: if `x` has other features.
        """
        x = check_input(x, self.in_features, min_rank=1)
        return binary_dense(**self._arguments(x))
