"""Signs, factors and sizes that a binary layer refuses, in NNX and in linen, and what it says."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

import ovsw_jax as ovsw

NNX_SIGN = ovsw.nn.LearnedThresholdSign(3)
LINEN_SIGN = ovsw.linen.LearnedThresholdSign()
KINDS = ("BinaryConv", "BinaryDense")


def make(package, kind, features=2, **arguments):
    """Makes a layer; a linen one notices its arguments when it is initialised."""
    size = {"kernel_size": (3, 3)} if kind == "BinaryConv" else {}
    layer = getattr(getattr(ovsw, package), kind)
    if package == "nn":
        return layer(3, features, **size, **arguments, rngs=nnx.Rngs(0))
    x = jnp.ones((1, 3, 3, 3))
    return layer(features, **size, **arguments).init(jax.random.key(0), x, train=False)


OWN = {
    "nn": r"ovsw\.nn\.LearnedThresholdSign\(in_features, rngs=rngs\)",
    "linen": r"ovsw\.linen\.LearnedThresholdSign\(\)",
}
IN_BOTH = {
    "scale='standardized' would be a second factor: .* Pass scale=None": {
        "kernel_sign": ovsw.nn.magnitude_aware_sign
    },
    "scale='learned' would be a second factor": {
        "kernel_sign": partial(ovsw.nn.magnitude_aware_sign),
        "scale": "learned",
    },
    "scale=<function mean_magnitude.* would be a second factor": {
        "kernel_sign": ovsw.nn.magnitude_aware_sign,
        "scale": ovsw.nn.mean_magnitude,
    },
    r"kernel_sign=LearnedThresholdSign is a module: ovsw.sad counts flips of sign\(W\).*ste_sign": {
        "kernel_sign": NNX_SIGN
    },
    "kernel_sign=LearnedThresholdSign is a module": {"kernel_sign": LINEN_SIGN},
    "kernel_sign=LearnedThresholdSign is a module: .*": {
        "kernel_sign": partial(ovsw.nn.LearnedThresholdSign, sign=ovsw.nn.ste_sign)
    },
    "kernel_sign='ste' is no function: use one such as ovsw.nn.ste_sign, or None": {
        "kernel_sign": "ste"
    },
    "kernel_sign=<class 'float'> is no function": {"kernel_sign": float},
    "input_sign=None and kernel_sign=None leave nothing binary: .* Flax's own": {
        "input_sign": None,
        "kernel_sign": None,
        "scale": None,
    },
    "scale='standardized' gives signs the magnitude .* use scale=None or scale='learned'": {
        "kernel_sign": None
    },
    "scale=<function mean_magnitude .* of kernel_sign=None have themselves": {
        "kernel_sign": None,
        "scale": ovsw.nn.mean_magnitude,
    },
    "scale=0.5 is unknown: use .* such as ovsw.nn.mean_magnitude, or None": {"scale": 0.5},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("package", OWN)
@pytest.mark.parametrize("message", IN_BOTH)
def test_kernel_signs(package, kind, message):
    with pytest.raises(ValueError, match=message):
        make(package, kind, **IN_BOTH[message])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("package", OWN)
def test_input_signs(package, kind):
    refused = {
        "input_sign='approx' is no function: use .*, a module such as {}, or None": "approx",
        "input_sign=LearnedThresholdSign is a class: make an object of it, as in {}": getattr(
            ovsw, package
        ).LearnedThresholdSign,
        "input_sign=LearnedThresholdSign is a class: .*{}": partial(
            getattr(ovsw, package).LearnedThresholdSign, sign=ovsw.nn.ste_sign
        ),
        "input_sign is a LearnedThresholdSign of Flax .* could not train: .*, {}": (
            LINEN_SIGN if package == "nn" else NNX_SIGN
        ),
    }
    for message, sign in refused.items():
        with pytest.raises(ValueError, match=message.format(OWN[package])):
            make(package, kind, input_sign=sign, normalize_input=False)


def test_learned_thresholds_are_not_normalised():
    message = "normalize_input=True divides .* in training only, .* pass normalize_input=False"
    for package, sign in (("nn", NNX_SIGN), ("linen", LINEN_SIGN)):
        with pytest.raises(ValueError, match=message):
            make(package, "BinaryConv", input_sign=sign)


def test_which_module_is_of_which_kind():
    with pytest.raises(ValueError, match="of Flax linen, not NNX"):
        make("nn", "BinaryDense", input_sign=LINEN_SIGN, normalize_input=False)
    with pytest.raises(ValueError, match="of Flax NNX, not linen"):
        make("linen", "BinaryDense", input_sign=NNX_SIGN, normalize_input=False)


def test_modules_of_ones_own_are_taken():
    class InNnx(nnx.Module):
        def __call__(self, x):
            return ovsw.nn.approx_sign(x)

    class InLinen(linen.Module):
        def __call__(self, x):
            return ovsw.nn.approx_sign(x)

    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 3, 3)), jnp.float32)
    for kind in KINDS:
        np.testing.assert_array_equal(make("nn", kind, input_sign=InNnx())(x), make("nn", kind)(x))
        params = make("linen", kind, input_sign=InLinen())["params"]
        assert set(params) == {"latent_kernel"}


@pytest.mark.parametrize("package", OWN)
@pytest.mark.parametrize(
    ("scale", "gave"),
    [
        (lambda kernel: 0.5, "0.5"),
        (lambda kernel: None, "None"),
        (jnp.sum, r"factors of shape \(\)"),
    ],
)
def test_functions_that_give_no_factors(package, scale, gave):
    message = rf"scale=.* gave {gave} for a kernel of shape \(3, 2\): .*, \(2,\)"
    with pytest.raises(ValueError, match=message):
        make(package, "BinaryDense", scale=scale)(jnp.ones((1, 3)))


@pytest.mark.parametrize("package", OWN)
def test_a_flag_is_a_bool(package):
    with pytest.raises(TypeError, match="normalize_input=3 is no bool"):
        make(package, "BinaryDense", normalize_input=3)


@pytest.mark.parametrize("name", ["input_sign", "kernel_sign"])
@pytest.mark.parametrize("kind", KINDS)
def test_functions_that_give_no_signs(kind, name):
    x = jnp.ones((1, 3, 3, 3))
    scale = {"scale": None}
    with pytest.raises(TypeError, match=rf"{name}=<.*> gave 1\.0, which is no array: .* of shape"):
        make("nn", kind, **scale, **{name: lambda x: 1.0})(x)
    with pytest.raises(ValueError, match=rf"{name}=<.*> gave an array of shape \(1, .* for one of"):
        make("nn", kind, **scale, **{name: lambda x: x[None]})(x)


COUNTS = [0, -1, 2.0, True, "2", None]


@pytest.mark.parametrize("value", COUNTS)
@pytest.mark.parametrize("name", ["in_features", "out_features", "feature_group_count"])
def test_sizes_of_a_convolution(name, value):
    sizes = {"in_features": 2, "out_features": 2, "feature_group_count": 1, name: value}
    with pytest.raises(ValueError, match=rf"^{name}={value!r} must be a positive integer\.$"):
        ovsw.nn.BinaryConv(kernel_size=(3, 3), **sizes, rngs=nnx.Rngs(0))


@pytest.mark.parametrize("value", COUNTS)
def test_sizes_of_other_layers(value):
    for name, sizes in (("in_features", (value, 2)), ("out_features", (2, value))):
        with pytest.raises(ValueError, match=rf"^{name}={value!r} must be a positive integer\.$"):
            ovsw.nn.BinaryDense(*sizes, rngs=nnx.Rngs(0))
    for kind in KINDS:
        with pytest.raises(ValueError, match=rf"^features={value!r} must be a positive integer\."):
            make("linen", kind, value)


def test_sizes_of_numpy_are_taken():
    for kind in KINDS:
        assert make("nn", kind, np.int64(4)).latent_kernel.shape[-1] == 4


@pytest.mark.parametrize("kernel_size", [2.5, None])
def test_kernel_sizes_that_are_no_numbers(kernel_size):
    with pytest.raises(ValueError, match=rf"kernel_size={kernel_size} must be a positive integer"):
        ovsw.nn.BinaryConv(3, 4, kernel_size, rngs=nnx.Rngs(0))
