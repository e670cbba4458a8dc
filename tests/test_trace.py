"""The program of a model: which operations, arrays and calls belong to which layer."""

import dataclasses

import flax.linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import ovsw_jax as ovsw
from ovsw_jax.graph.call import call_with
from ovsw_jax.graph.marked_layers import marked_call
from ovsw_jax.graph.module_tree import at
from ovsw_jax.graph.products import macs
from ovsw_jax.graph.trace import Trace, trace

RNGS = nnx.Rngs(0)


def linear(n=4):
    return nnx.Linear(n, n, use_bias=False, rngs=RNGS)


def traced(model, *inputs, **named):
    return trace(model, call_with(inputs, named))


def products(program):
    """How often each layer multiplies matrices."""
    found = {}
    for equation in program.equations():
        if macs(equation.operation):
            found[equation.layer] = found.get(equation.layer, 0) + equation.times
    return found


def called(program):
    """Layer, repeats and places of each call."""
    return [(c.layer, c.times, [*c.inputs], [*c.outputs]) for c in program.calls()]


def test_the_marks_are_nothing_that_a_linen_module_in_nnx_takes():
    """`nnx.bridge.ToNNX` takes attributes that are not Flax's own for variables in linen."""
    x = jnp.ones((2, 3))
    model = nnx.bridge.lazy_init(nnx.bridge.ToNNX(flax.linen.Dense(4), rngs=nnx.Rngs(0)), x)
    assert products(traced(model, (2, 3))) == {(): 1}


# --- values of the program


class Small(nnx.Module):
    def __init__(self):
        self.stem = linear()
        self.binary = ovsw.nn.BinaryDense(4, 4, rngs=RNGS)
        self.norm = nnx.BatchNorm(4, rngs=RNGS)

    def __call__(self, x, *, mask=None):
        x = self.norm(self.binary(jnp.tanh(self.stem(x))))
        return {"logits": x if mask is None else x * mask, "flag": "no array"}


def run(program, model, arrays, outvars):
    """Values of some variables of the program."""
    values = dict(zip(program.inputs.values(), arrays, strict=True))
    for path, variables in program.variables.items():
        values |= dict(zip(variables, jax.tree.leaves(at(model, path)), strict=True))
    whole = program.program.jaxpr
    jaxpr = whole.replace(outvars=outvars, debug_info=whole.debug_info.with_unknown_names())
    given = [values[variable] for variable in jaxpr.invars]
    return jax.core.eval_jaxpr(jaxpr, program.program.consts, *given)


def test_inputs_and_outputs_of_layers_are_those_met_by_hand():
    model, x = Small(), jnp.asarray(np.random.default_rng(0).normal(size=(3, 4)), jnp.float32)
    model.eval()
    mask = jnp.asarray([[1.0], [0.0], [1.0]])
    program = traced(nnx.eval_shape(lambda: model), (3, 4), mask=jnp.zeros((3, 1)))
    into = jnp.tanh(model.stem(x))
    by_hand = {
        (): (x, model(x, mask=mask)["logits"]),
        ("stem",): (x, model.stem(x)),
        ("binary",): (into, model.binary(into)),
        ("norm",): (model.binary(into), model.norm(model.binary(into))),
    }
    calls = {call.layer: call for call in program.calls()}
    assert set(by_hand) <= set(calls)
    for path, expected in by_hand.items():
        call = calls[path]
        output = call.outputs["logits" if path == () else ""]
        found = run(program, model, [x, mask], [call.inputs["0"], output])
        for value, right in zip(found, expected, strict=True):
            np.testing.assert_allclose(value, right, rtol=1e-5, atol=1e-6)
    assert list(calls[()].inputs) == ["0", "mask"]
    (result,) = run(program, model, [x, mask], program.program.jaxpr.outvars)
    np.testing.assert_allclose(result, by_hand[()][1], rtol=1e-5, atol=1e-6)


def test_edges_between_layers_are_variables_that_they_share():
    program = traced(nnx.Sequential(linear(), linear()), (3, 4))
    whole, first, second = program.calls()
    assert [call[0] for call in called(program)] == [(), ("layers", 0), ("layers", 1)]
    assert first.inputs["0"] is whole.inputs["0"] is program.inputs["0"]
    assert second.inputs["0"] is first.outputs[""]
    assert second.outputs[""] is whole.outputs[""] is program.program.jaxpr.outvars[0]


class Tied(nnx.Module):
    def __init__(self):
        self.one, self.two = linear(), linear()
        self.two.kernel = self.one.kernel
        self.plain = jnp.ones(4)
        self.several = nnx.Param({"a": jnp.ones(4), "b": jnp.ones(4)})

    def __call__(self, x):
        return self.two(self.one(x)) + self.plain + self.several["b"]


def test_inputs_of_the_program_are_told_by_each_path_of_a_variable():
    program = traced(Tied(), (3, 4))
    found = program.variables
    assert found["one", "kernel"] == found["two", "kernel"]
    assert {path: len(arrays) for path, arrays in found.items()} == {
        ("one", "kernel"): 1,
        ("two", "kernel"): 1,
        ("plain",): 1,
        ("several",): 2,
    }
    given = {variable for arrays in found.values() for variable in arrays}
    assert given | {program.inputs["0"]} == set(program.program.jaxpr.invars)


def test_many_arrays_in_one_input_keep_their_order():
    """Eleven of them, since "10" sorts before "2"."""

    class Picks(nnx.Module):
        def __call__(self, xs):
            return xs[2]

    shapes = [jax.ShapeDtypeStruct((i + 1,), jnp.float32) for i in range(11)]
    program = traced(Picks(), shapes)
    assert program.program.out_avals[0].shape == (3,)
    assert ovsw.summary(Picks(), shapes).total.output_shapes == ((3,),)
    assert [v.aval.shape for v in program.inputs.values()] == [x.shape for x in shapes]


def test_marks_serve_linen_too():
    """Its `intercept_methods` finds the calls; programs and calls are read in the same way."""
    model = flax.linen.Sequential([flax.linen.Dense(4, use_bias=False) for _ in range(2)])
    params = jax.eval_shape(model.init, jax.random.key(0), jnp.ones((3, 4)))
    layers = {}

    def marked(method, args, kwargs, context):
        path = context.module.path
        layers.setdefault(path, context.module)
        return marked_call(list(layers).index(path), method, *args, **kwargs)

    def forward(params, x):
        with flax.linen.intercept_methods(marked):
            return model.apply(params, x)

    program = jax.make_jaxpr(forward)(params, jnp.ones((3, 4)))
    one, two, x = program.jaxpr.invars
    found = Trace(program, layers, {("layers_0",): (one,), ("layers_1",): (two,)}, {"0": x})
    assert products(found) == {("layers_0",): 1, ("layers_1",): 1}
    assert [call[0] for call in called(found)] == [(), ("layers_0",), ("layers_1",)]
    _, first, second = found.calls()
    assert second.inputs["0"] is first.outputs[""]


# --- what NNX does to modules


class Block(nnx.Module):
    def __init__(self, rngs):
        self.dense = nnx.Linear(4, 4, use_bias=False, rngs=rngs)

    @nnx.jit
    def __call__(self, x):
        return self.dense(x)

    def twice(self, x):
        return self.dense(self.dense(x))


class Transformed(nnx.Module):
    """Layers in lists and dicts, in transforms and conditionals, shared, and by other methods."""

    def __init__(self, rngs):
        self.stack = nnx.vmap(Block)(rngs.split(3))
        self.items = nnx.List([Block(rngs), {"in": nnx.data(Block(rngs))}["in"]])
        self.named = nnx.Dict(a=Block(rngs))
        self.pair = nnx.data((Block(rngs), self.items[0]))
        self.again = self.items[0]

    def __call__(self, x):
        x = nnx.scan(lambda x, b: b(x), in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)(x, self.stack)
        x = nnx.vmap(lambda b, x: b(x), in_axes=(0, None))(self.stack, x).sum(0)
        x = nnx.remat(lambda b, x: b(x))(self.items[1], x)
        x = nnx.cond(x.sum() > 0, lambda b, x: b(x), lambda b, x: b.twice(x), self.named["a"], x)
        return self.pair[1](self.again.twice(self.pair[0].twice(x)))


@pytest.fixture(scope="module")
def transformed():
    model = nnx.eval_shape(lambda: Transformed(nnx.Rngs(0)))
    nnx.eval_shape(lambda m: m(jnp.ones((2, 4))), model)  # what jit has traced is not traced again
    return traced(model, (2, 4))


def test_products_belong_to_layers_whatever_nnx_does_to_them(transformed):
    assert products(transformed) == {
        ("stack", "dense"): 3 + 1,
        ("items", 1, "dense"): 1,
        ("named", "a", "dense"): 1 + 2,
        ("pair", 0, "dense"): 2,
        ("items", 0, "dense"): 2 + 1,
    }


def test_calls_are_met_in_programs_within_the_program(transformed):
    found = [(call.layer, call.times) for call in transformed.calls() if call.layer]
    assert [entry for entry in found if entry[0][-1] != "dense"] == [
        (("stack",), 3),
        (("stack",), 1),
        (("items", 1), 1),
        (("named", "a"), 1),
        (("items", 0), 1),
    ]
    assert len(found) == 5 + 11
    for call in transformed.calls():
        jaxpr = transformed.program_at(call.place)
        defined = {*jaxpr.invars, *jaxpr.constvars, *(v for e in jaxpr.eqns for v in e.outvars)}
        assert {*call.inputs.values(), *call.outputs.values()} <= defined
    assert [call.place for call in transformed.calls() if not call.layer] == [()]


class NoPytree(nnx.Module, pytree=False):
    def __init__(self):
        self.layers = [linear(), linear()]
        self.also = {"last": self.layers[1]}
        self.whole = [self]  # a cycle

    def __call__(self, x):
        return self.also["last"](self.layers[0](x))


def test_modules_that_are_no_pytrees_and_hold_themselves():
    program = traced(NoPytree(), (3, 4))
    assert products(program) == {("layers", 0): 1, ("layers", 1): 1}
    binary = ovsw.binarize(NoPytree(), where=lambda path, _: path == ("layers", 1))
    assert isinstance(binary.layers[1], ovsw.nn.BinaryDense)
    assert binary.also["last"] is binary.layers[1]
    assert binary.whole[0] is binary


# --- what users' classes do


class Listed(nnx.Module):
    """Keeps a list of its subclasses, as a registry does."""

    subclasses = ()

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        Listed.subclasses += (cls,)


@dataclasses.dataclass
class Odd(Listed):
    """Unhashable, with a method named as one of nnx.Dict, and with arguments of every kind."""

    dense: nnx.Linear
    classes = nnx.Linear  # no method

    def update(self, x):
        return x @ self.dense.kernel[...]

    def __call__(self, x, cache, other, unused=None):
        cache["x"] = x
        other.count = nnx.Variable(jnp.ones(()))
        assert isinstance(self, Odd)
        assert type(self).__name__ == "Odd"
        return self.update(x) + type(self)(self.dense)(x, cache, other) if unused else x


class HoldsOdd(nnx.Module):
    def __init__(self):
        self.odd = Odd(linear())
        self.same = Odd(linear())
        self.other = linear()

    def __call__(self, x):
        cache = {}
        y = self.odd(x, cache, self.other, unused=1)
        y = y + cache["x"] + self.other.count[...] + self.same(x, cache, self.other)
        return y + self.same.update(x)


def test_classes_and_arguments_of_the_user_stay_what_they_are():
    model, before = HoldsOdd(), Listed.subclasses
    program = traced(model, (3, 4))
    assert Listed.subclasses == before
    assert type(model.odd) is Odd
    assert not hasattr(model.other, "count")
    assert not [name for name in vars(model.odd) if "layer" in name]
    assert products(program) == {("odd",): 1, ("same",): 1}
    assert called(program) == [
        ((), 1, ["0"], [""]),
        (("odd",), 1, ["0"], [""]),
        (("same",), 1, ["0", "1/x"], [""]),
    ]


class Lends(nnx.Module):
    """A layer that returns another layer, which changes then."""

    def __init__(self):
        self.dense = linear()
        self.lender = Returns(self.dense)

    def __call__(self, x):
        self.lender(x).seen = nnx.Variable(x)
        return self.dense.seen[...]


class Returns(nnx.Module):
    def __init__(self, layer):
        self.layer = layer

    def __call__(self, x):
        return self.layer


def test_modules_that_layers_return_are_those_of_the_model():
    program = traced(Lends(), (3, 4))
    assert program.program.jaxpr.outvars == [program.inputs["0"]]


def test_a_failed_trace_leaves_nothing_behind():
    model = Small()
    with pytest.raises(TypeError, match="dot_general requires"):
        traced(model, (3, 5))
    assert type(model.stem) is nnx.Linear
    assert called(traced(model, (3, 4)))[1] == (("stem",), 1, ["0"], [""])
