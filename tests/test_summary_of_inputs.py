"""What `ovsw.summary` takes as inputs, and what it counts as memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import ovsw_jax as ovsw


def abstract(make):
    return nnx.eval_shape(lambda: make(nnx.Rngs(0)))


class TwoInputs(nnx.Module):
    """Of images and a table of numbers, with a flag that leaves out a layer."""

    def __init__(self, rngs):
        self.dense = ovsw.nn.BinaryDense(6, 4, scale=None, rngs=rngs)
        self.table = nnx.Linear(3, 4, use_bias=False, rngs=rngs)
        self.head = nnx.Linear(4, 2, use_bias=False, rngs=rngs)

    def __call__(self, x, table, *, mask=None, with_head=True):
        x = self.dense(x["image"]) + self.table(table)
        x = x if mask is None else jnp.where(mask, x, 0)
        return self.head(x) if with_head else x


def test_several_inputs_and_flags():
    """5 rows of 6 numbers and of 3: by hand, whatever form the inputs are given in."""
    model, array = abstract(TwoInputs), jax.ShapeDtypeStruct
    image = {"image": array((5, 6), jnp.float32)}
    counted = ovsw.summary(model, image, (5, 3), mask=np.ones((5, 1), bool), with_head=False)
    found = {r.name: (r.binary_macs, r.float_macs, r.output_shapes) for r in counted.rows}
    assert found == {
        "dense": (5 * 6 * 4, 0, ((5, 4),)),
        "table": (0, 5 * 3 * 4, ((5, 4),)),
        "head": (0, 0, ()),
    }
    assert counted.total.output_shapes == ((5, 4),)
    inputs = [(x.name, x.shape, x.dtype) for x in counted.inputs]
    assert inputs == [
        ("0/image", (5, 6), "float32"),
        ("1", (5, 3), "float32"),
        ("mask", (5, 1), "bool"),
    ]
    line = "Inputs 0/image: 5x6 float32, 1: 5x3 float32, mask: 5x1 bool. 24 1-bit and"
    assert line in str(counted)
    assert counted.to_dict()["inputs"][2] == {"name": "mask", "shape": [5, 1], "dtype": "bool"}
    by_name = ovsw.summary(model, x=image, table=jnp.ones((5, 3)))
    assert by_name.total.float_macs == 5 * 3 * 4 + 5 * 4 * 2


def test_a_single_input_in_every_form():
    model = nnx.eval_shape(lambda: nnx.Linear(4, 2, rngs=nnx.Rngs(0)))
    by_shape = ovsw.summary(model, input_shape=(3, 4))
    assert by_shape == ovsw.summary(model, np.ones((3, 4)))
    assert by_shape == ovsw.summary(model, jax.ShapeDtypeStruct((3, 4), jnp.float32))
    assert "Input 3x4 float32. 0 1-bit and 10 real parameters;" in str(by_shape)


@pytest.mark.parametrize("given", [{"image": (5, 6)}, [(5, 6), (5, 3)], [np.ones(3), 3], True])
def test_what_is_neither_a_shape_nor_arrays(given):
    with pytest.raises(ValueError, match=r"positive integers.*jax.ShapeDtypeStructs in lists and"):
        ovsw.summary(abstract(TwoInputs), given, (5, 3))


def test_inputs_that_the_model_does_not_take():
    model, array = abstract(TwoInputs), r"\(float32 array of shape \(5, 6\)\)"
    with pytest.raises(
        ValueError, match=rf"TwoInputs can't be called with 0 {array}, mask \(bool "
    ):
        ovsw.summary(model, (5, 6), mask=np.ones(3, bool))
    with pytest.raises(
        ValueError,
        match=rf"called with 0/image {array}, table=\(5, 3\): (?s:.*)Only a positional input .* by "
        r"name, that is jax\.ShapeDtypeStruct\(shape, dtype\)",
    ):
        ovsw.summary(model, {"image": np.ones((5, 6))}, table=(5, 3))
    with pytest.raises(ValueError, match=r"there is no input: give the input_shape of a whole"):
        ovsw.summary(model, with_head=True)


class Kind(nnx.Variable):
    pass


class Leaves(nnx.Module):
    """Beside 3 signs: 4 bytes of each kind that is stored, and much of all that is not."""

    def __init__(self, rngs):
        self.dense = ovsw.nn.BinaryDense(3, 1, scale=None, rngs=rngs)
        self.statistic, self.own = nnx.BatchStat(jnp.zeros(1)), Kind(jnp.zeros(1))
        self.plain = jnp.ones(1)
        self.cache, self.metric = nnx.Cache(jnp.zeros(100)), nnx.metrics.Average()
        self.optimizer_state = nnx.OptState(jnp.zeros(100))
        self.dropout = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x):
        self.features = nnx.Intermediate(x)
        self.sum = nnx.Perturbation(x + getattr(self, "sum", 0))
        return self.dropout(self.dense(x) * self.own[...] * self.plain + self.statistic[...])


def test_memory_is_of_what_must_be_stored():
    """Also after a call with a large batch, whose intermediates stay in the model."""
    model = Leaves(nnx.Rngs(0))
    before = ovsw.summary(model, (1, 3))
    assert (before.total.stored_bytes, before.total.training_bytes) == (1 + 3 * 4, 3 * 4 + 3 * 4)
    model(jnp.ones((1000, 3)))
    assert ovsw.summary(model, (1, 3)) == before
    assert model.features.shape == (1000, 3)
