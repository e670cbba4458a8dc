"""Layers of an ordinary network that no binary layer can replace."""

from functools import partial

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

import ovsw_jax as ovsw


class Standardised(nnx.Conv):
    def __call__(self, x):
        return super().__call__(x / 2)


class Conv3x3(nnx.Conv):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, (3, 3), **kwargs)


def conv(make=nnx.Conv, **options):
    return make(4, 4, (3,), **options, rngs=nnx.Rngs(0))


def linear(seed=0, **options):
    return nnx.Linear(4, 4, **options, rngs=nnx.Rngs(seed))


def stacked():
    return nnx.vmap(linear)(jax.random.split(jax.random.key(0), 2))


REFUSED = {
    r"it has a mask, and a masked weight is 0.*Train it without": partial(
        conv, mask=jnp.ones((3, 4, 4))
    ),
    r"input_dilation=2 puts zeros between.*Resize": partial(conv, input_dilation=2),
    r"its own conv_general_dilated, which binary layers don't take": partial(
        conv, conv_general_dilated=partial(jax.lax.conv_general_dilated)
    ),
    r"its own dot_general": partial(linear, dot_general=partial(jax.lax.dot_general)),
    r"its own promote_dtype": partial(linear, promote_dtype=lambda a, dtype: a),
    r"its own preferred_element_type": partial(conv, preferred_element_type=jnp.float32),
    r"kernel has shape \(2, 4, 4\) instead of \(4, 4\): it is stacked.*in the function": stacked,
    r"kernel has dtype complex64.*real floating-point": partial(linear, param_dtype=jnp.complex64),
    r"padding='SAME_LOWER' is unknown": partial(conv, padding="SAME_LOWER"),
    r"Standardised has a __call__ of its own.*by hand": partial(conv, Standardised),
}


@pytest.mark.parametrize("message", REFUSED)
def test_layers_that_no_binary_layer_can_stand_for(message):
    model = nnx.Dict(first=linear(), inner=nnx.List([REFUSED[message]()]), last=linear())
    text = rf"inner/0 \(\w+\) can't be made binary: .*{message}.*where=.*\('inner', 0\)"
    with pytest.raises(ValueError, match=text):
        ovsw.binarize(model)
    with pytest.raises(ValueError, match="nothing in Dict"):
        ovsw.binarize(model, where=lambda path, _: False)


class Caller(nnx.Module):
    """Calls its middle layer through an attribute."""

    def __init__(self, of_layer):
        self.first, self.middle, self.last = (nnx.Linear(4, 4, rngs=nnx.Rngs(0)) for _ in range(3))
        self.call = of_layer(self.middle)

    def __call__(self, x):
        return self.last(self.call(self.first(x)))


@pytest.mark.parametrize(
    "of_layer",
    [lambda layer: layer.__call__, lambda layer: partial(partial(nnx.Linear.__call__, layer))],
)
def test_functions_that_would_call_the_old_layer(of_layer):
    message = r"'call' of the model is a function that holds a Linear, .* Call the module in a"
    with pytest.raises(ValueError, match=message):
        ovsw.binarize(Caller(of_layer))
    with pytest.raises(ValueError, match=message):
        ovsw.summary(Caller(of_layer), (1, 4))


@pytest.mark.parametrize("sign", [nnx.Linear, partial(nnx.Linear, use_bias=False)])
def test_a_class_that_is_not_made_as_a_sign_is(sign):
    model = nnx.Sequential(*(nnx.Linear(4, 4, rngs=nnx.Rngs(0)) for _ in range(3)))
    with pytest.raises(
        TypeError, match=r"Linear\(in_features, rngs=rngs\), .*failed: .*Give a class"
    ):
        ovsw.binarize(model, input_sign=sign, normalize_input=False)


def test_precision_is_refused_only_where_it_matters():
    layer = linear(precision="highest")
    assert isinstance(ovsw.binarize(layer, where=lambda *_: True), ovsw.nn.BinaryDense)
    with pytest.raises(ValueError, match=r"precision=highest matters for real op.*input_sign=None"):
        ovsw.binarize(layer, where=lambda *_: True, input_sign=None)


def test_a_subclass_that_only_sets_arguments_is_replaced():
    binary = ovsw.binarize(nnx.List([Conv3x3(4, 4, rngs=nnx.Rngs(0))]), where=lambda *_: True)
    assert type(binary[0]) is ovsw.nn.BinaryConv
