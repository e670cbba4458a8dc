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


REFUSED = {
    r"it has a mask, and a masked weight is 0.*Train it without": lambda: nnx.Conv(
        4, 4, (3,), mask=jnp.ones((3, 4, 4)), rngs=nnx.Rngs(0)
    ),
    r"input_dilation=2 puts zeros between.*Resize": lambda: nnx.Conv(
        4, 4, (3,), input_dilation=2, rngs=nnx.Rngs(0)
    ),
    r"its own conv_general_dilated, which binary layers don't take": lambda: nnx.Conv(
        4, 4, (3,), conv_general_dilated=partial(jax.lax.conv_general_dilated), rngs=nnx.Rngs(0)
    ),
    r"its own dot_general": lambda: nnx.Linear(
        4, 4, dot_general=partial(jax.lax.dot_general), rngs=nnx.Rngs(0)
    ),
    r"its own promote_dtype": lambda: nnx.Linear(
        4, 4, promote_dtype=lambda a, dtype: a, rngs=nnx.Rngs(0)
    ),
    r"its own preferred_element_type": lambda: nnx.Conv(
        4, 4, (3,), preferred_element_type=jnp.float32, rngs=nnx.Rngs(0)
    ),
    r"kernel has shape \(2, 4, 4\) instead of \(4, 4\): it is stacked.*in the function": lambda: (
        nnx.vmap(lambda key: nnx.Linear(4, 4, rngs=nnx.Rngs(key)))(
            jax.random.split(jax.random.key(0), 2)
        )
    ),
    r"kernel has dtype complex64.*real floating-point": lambda: nnx.Linear(
        4, 4, param_dtype=jnp.complex64, rngs=nnx.Rngs(0)
    ),
    r"padding='SAME_LOWER' is unknown": lambda: nnx.Conv(
        4, 4, (3,), padding="SAME_LOWER", rngs=nnx.Rngs(0)
    ),
    r"Standardised has a __call__ of its own.*by hand": lambda: Standardised(
        4, 4, (3,), rngs=nnx.Rngs(0)
    ),
}


@pytest.mark.parametrize("message", REFUSED)
def test_layers_that_no_binary_layer_can_stand_for(message):
    model = nnx.Dict(
        first=nnx.Linear(4, 4, rngs=nnx.Rngs(0)),
        inner=nnx.List([REFUSED[message]()]),
        last=nnx.Linear(4, 4, rngs=nnx.Rngs(0)),
    )
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
    layer = nnx.Linear(4, 4, precision="highest", rngs=nnx.Rngs(0))
    assert isinstance(ovsw.binarize(layer, where=lambda *_: True), ovsw.nn.BinaryDense)
    with pytest.raises(ValueError, match=r"precision=highest matters for real op.*input_sign=None"):
        ovsw.binarize(layer, where=lambda *_: True, input_sign=None)


def test_a_subclass_that_only_sets_arguments_is_replaced():
    binary = ovsw.binarize(nnx.List([Conv3x3(4, 4, rngs=nnx.Rngs(0))]), where=lambda *_: True)
    assert type(binary[0]) is ovsw.nn.BinaryConv
