"""What `ovsw.inspect` measures, against NumPy on captured inputs, and what it says of it."""

import json
import re

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx
from hypothesis import given
from hypothesis import strategies as st

import ovsw_jax as ovsw

RNGS = nnx.Rngs(0)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def verdicts(inspection):
    return {row.name: row.verdict for row in inspection.rows}


def measures(inspection, name):
    return {row.name: row.numbers() for row in inspection.rows}[name]


# --- the measures, by NumPy


def by_numpy(x, y, weights, *, sample_axes, divide, slope, kernel_slope):
    """The measures of a layer whose samples are the last `sample_axes` axes of `x`."""
    x, y, weights = (np.asarray(a, np.float64) for a in (x, y, weights))
    divided = x
    if divide:
        axes = tuple(range(x.ndim - sample_axes, x.ndim))
        divided = x / np.sqrt(x.var(axes, ddof=1, keepdims=True) + 1e-5)
    batch = x.ndim - sample_axes

    def constant(a):
        samples = a.reshape(-1, *a.shape[batch:])
        same = np.all(samples == samples[0], axis=0)
        return same.reshape(-1, same.shape[-1]).all(0).mean()

    return {
        "positive_input_ratio": (x >= 0).mean(),
        "constant_input_ratio": constant(x >= 0),
        "input_gradient_ratio": (slope(divided) != 0).mean(),
        "constant_output_ratio": constant(y),
        "blocked_weight_ratio": (kernel_slope(weights) == 0).mean(),
        "nonfinite_inputs": 0,
        "nonfinite_weights": 0,
        "negative_input_ratio": (x < 0).mean(),
        "input_rms": np.sqrt((x**2).mean()),
    }


def triangle(x):
    return np.maximum(2 - 2 * np.abs(x), 0)


def window(x):
    return np.abs(x) <= 1


def same(found, expected):
    found, expected = ({k: v for k, v in x.items() if k != "calls"} for x in (found, expected))
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, err_msg=name)


@hypothesis.settings(max_examples=12)
@given(
    seed=st.integers(0, 2**31),
    size=st.sampled_from([0.01, 1.0, 30.0]),
    shift=st.sampled_from([-3.0, 0.0, 0.5, 3.0]),
    divide=st.booleans(),
    evaluation=st.booleans(),
)
def test_measures_of_a_dense_layer_by_numpy(seed, size, shift, divide, evaluation):
    x = size * (normal(6, 5, seed=seed) + shift)
    layer = ovsw.nn.BinaryDense(
        5, 4, normalize_input=divide, kernel_sign=ovsw.nn.clipped_ste_sign, rngs=RNGS
    )
    layer.latent_kernel[...] = 1.5 * normal(5, 4, seed=seed)
    found = ovsw.inspect(layer, x, evaluation=evaluation)
    layer.set_attributes(deterministic=evaluation)
    expected = by_numpy(
        x,
        layer(x),
        layer.latent_kernel[...],
        sample_axes=1,
        divide=divide and not evaluation,
        slope=triangle,
        kernel_slope=window,
    )
    same(measures(found, ""), expected)


class Net(nnx.Module):
    """Layers in a list in a module of one's own, with all that a call changes."""

    def __init__(self, rngs):
        self.stem = nnx.Conv(3, 6, (3, 3), rngs=rngs)
        self.blocks = nnx.List([ovsw.nn.BinaryConv(6, 8, (3, 3), rngs=rngs)])
        self.norm = nnx.BatchNorm(8, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.head = nnx.Linear(8, 3, rngs=rngs)

    def __call__(self, x):
        x = self.norm(self.blocks[0](self.before(x)))
        return self.head(self.dropout(x).mean((1, 2)))

    def before(self, x):
        return nnx.relu(self.stem(x)) - 0.1


def test_measures_of_a_convolution_by_numpy():
    model, x = Net(nnx.Rngs(1)), normal(4, 6, 6, 3)
    found = measures(ovsw.inspect(model, x), "blocks/0")
    taken = model.before(x)
    expected = by_numpy(
        taken,
        model.blocks[0](taken),
        model.blocks[0].latent_kernel[...],
        sample_axes=3,
        divide=True,
        slope=triangle,
        kernel_slope=np.ones_like,
    )
    same(found, expected)


def test_the_model_does_not_change():
    """Neither statistics nor counts of random streams nor modes; two calls measure the same."""
    model, x = Net(nnx.Rngs(1)), normal(4, 6, 6, 3)
    model.eval()
    before = jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(model, nnx.Not(nnx.RngKey))))
    graph = nnx.graphdef(model)
    first, second = ovsw.inspect(model, x), ovsw.inspect(model, x)
    after = jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(model, nnx.Not(nnx.RngKey))))
    jax.tree.map(np.testing.assert_array_equal, before, after)
    jax.tree.map(np.testing.assert_array_equal, first, second)
    assert nnx.graphdef(model) == graph


def test_it_is_traced_once_for_a_model_and_a_shape():
    traces = []

    class Counts(nnx.Module):
        def __init__(self):
            self.dense = ovsw.nn.BinaryDense(4, 4, rngs=RNGS)

        def __call__(self, x):
            traces.append(x.shape)
            return self.dense(x)

    model = Counts()
    for step in range(3):
        model.dense.latent_kernel[...] = normal(4, 4, seed=step)
        ovsw.inspect(model, normal(3, 4, seed=step))
    assert len(traces) == 1


# --- wherever the layers are


def dense(**options):
    return ovsw.nn.BinaryDense(4, 4, rngs=RNGS, **options)


class CalledTwice(nnx.Module):
    def __init__(self):
        self.dense = dense()

    def __call__(self, x):
        return self.dense(jnp.abs(x)) + self.dense(-jnp.abs(x) - 1)


def test_a_layer_that_is_called_twice_has_one_row_over_both_calls():
    (row,) = ovsw.inspect(CalledTwice(), normal(8, 4)).rows
    assert row.name == "dense"
    assert row.numbers()["positive_input_ratio"] == 0.5
    assert row.numbers()["nonfinite_weights"] == 0
    assert row.numbers()["calls"] == 2


def test_non_finite_weights_of_two_calls_count_once_and_inputs_of_each():
    model = CalledTwice()
    model.dense.latent_kernel[0, :2] = jnp.nan
    x = normal(8, 4)
    x[0, 0] = np.inf
    found = measures(ovsw.inspect(model, x), "dense")
    assert found["nonfinite_weights"] == 2
    assert found["nonfinite_inputs"] == 2


class Stack(nnx.Module):
    """Layers stacked by `nnx.vmap`, run one after the other by `nnx.scan`."""

    def __init__(self, count):
        make = nnx.vmap(lambda rngs: ovsw.nn.BinaryDense(4, 4, rngs=rngs))
        self.layers = make(nnx.Rngs(0).split(count))

    def __call__(self, x):
        def step(x, layer):
            return layer(x)

        return nnx.scan(step, in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)(x, self.layers)


def members(stack):
    graph, state = nnx.split(stack.layers)
    count = stack.layers.latent_kernel.shape[0]
    return [nnx.merge(graph, jax.tree.map(lambda x, i=i: x[i], state)) for i in range(count)]


def mean_of(rows):
    return {name: np.mean([row[name] for row in rows]) for name in rows[0]}


def test_a_scanned_stack_has_one_row_over_its_layers():
    stack, x = Stack(3), normal(8, 4)
    found = measures(ovsw.inspect(stack, x), "layers")
    rows = []
    for layer in members(stack):
        rows.append(measures(ovsw.inspect(layer, x), ""))
        x = layer(x)
    expected = mean_of(rows)
    squares = np.mean([row["input_rms"] ** 2 for row in rows])
    same(found, expected | {"input_rms": np.sqrt(squares)})
    stack.layers.latent_kernel[1, 0, :3] = jnp.nan
    assert measures(ovsw.inspect(stack, normal(8, 4)), "layers")["nonfinite_weights"] == 3


class Parallel(nnx.Module):
    """The same stack, mapped by `nnx.vmap`: the axes of its arrays tell nothing."""

    def __init__(self, count, axis=0):
        self.layers = Stack(count).layers
        self.axis = axis

    def __call__(self, x):
        run = nnx.vmap(lambda layer, x: layer(x), in_axes=(0, None), out_axes=self.axis)
        return run(self.layers, x).sum(self.axis)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_mapped_stack_has_one_row_over_its_layers(axis):
    model, x = Parallel(3, axis), normal(8, 4)
    found = measures(ovsw.inspect(model, x), "layers")
    same(found, mean_of([measures(ovsw.inspect(layer, x), "") for layer in members(model)]))


class Chosen(nnx.Module):
    """Layers in branches, in a loop, under `remat` and in a compiled function."""

    def __init__(self):
        self.left, self.right, self.loop = dense(), dense(), dense()
        self.compiled, self.remat = dense(), dense()

    def __call__(self, x, left):
        x = nnx.cond(left, lambda m, x: m.left(x), lambda m, x: m.right(x), self, x)
        x = nnx.jit(lambda layer, x: layer(x))(self.compiled, x)
        x = nnx.remat(lambda layer, x: layer(x))(self.remat, x)
        return nnx.while_loop(
            lambda state: state[1] < 3, lambda s: (s[0], s[1] + 1, s[0](s[2])), (self.loop, 0, x)
        )[2]


def test_branches_loops_and_compiled_functions():
    model, x = Chosen(), normal(8, 4)
    found = ovsw.inspect(model, x, jnp.array(True))
    taken = measures(ovsw.inspect(model.left, x), "")
    same(measures(found, "left"), taken)
    assert verdicts(found)["right"] == "is not called"
    assert {row.name: row.numbers()["calls"] for row in found.rows} == {
        "left": 1,
        "right": 0,
        "loop": 3,
        "compiled": 1,
        "remat": 1,
    }
    x = model.remat(model.compiled(model.left(x)))
    rows = []
    for _ in range(3):
        rows.append(measures(ovsw.inspect(model.loop, x), ""))
        x = model.loop(x)
    expected = mean_of(rows)["positive_input_ratio"]
    np.testing.assert_allclose(measures(found, "loop")["positive_input_ratio"], expected, rtol=1e-5)


def test_a_layer_within_shard_map_is_an_error_that_says_where_to_inspect():
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec

    class Divided(nnx.Module):
        def __init__(self):
            self.dense = dense()

        def __call__(self, x):
            apply = jax.shard_map(
                self.dense, mesh=mesh, in_specs=spec("data"), out_specs=spec("data")
            )
            return apply(x)

    with pytest.raises(ValueError, match="called within shard_map"):
        ovsw.inspect(Divided(), normal(8, 4))


# --- within compiled functions


@pytest.mark.parametrize("jit", [jax.jit, nnx.jit])
def test_it_can_be_called_within_jit(jit):
    model, x = CalledTwice(), normal(8, 4)
    graph, state = nnx.split(model)
    if jit is jax.jit:
        found = jax.jit(lambda state, x: ovsw.inspect(nnx.merge(graph, state), x))(state, x)
    else:
        found = nnx.jit(ovsw.inspect)(model, x)
    same(measures(found, "dense"), measures(ovsw.inspect(model, x), "dense"))


def test_it_can_be_mapped_over_members():
    models, x = [CalledTwice(), CalledTwice()], normal(8, 4)
    graph = nnx.graphdef(models[0])
    states = jax.tree.map(lambda *x: jnp.stack(x), *map(nnx.state, models))
    found = jax.vmap(lambda state: ovsw.inspect(nnx.merge(graph, state), x))(states)
    with pytest.raises(ValueError, match=r"have shape \(2,\), as vmap makes them"):
        found.faults  # noqa: B018
    for i, model in enumerate(models):
        member = jax.tree.map(lambda x, i=i: x[i], found)
        same(measures(member, "dense"), measures(ovsw.inspect(model, x), "dense"))


def test_verdicts_of_traced_measures_are_an_error_and_their_repr_is_not():
    graph, state = nnx.split(CalledTwice())

    @jax.jit
    def look(state, x):
        found = ovsw.inspect(nnx.merge(graph, state), x)
        assert "LayerInspection" in repr(found)
        assert "LayerInspection" in str(found)
        assert found._repr_html_() is None
        return found.rows[0].verdict

    with pytest.raises(TypeError, match="measures of 'dense' are traced: return the inspection"):
        look(state, normal(8, 4))


# --- other kinds of layers


def test_a_layer_of_ones_own():
    class Own(nnx.Module):
        def __init__(self):
            self.input_sign = ovsw.nn.clipped_ste_sign
            self.latent_kernel = nnx.Param(jnp.asarray(normal(4, 3)))

        def __call__(self, x):
            return self.input_sign(x) @ ovsw.nn.ste_sign(self.latent_kernel[...])

    model, x = nnx.Sequential(Own()), 2 * normal(8, 4)
    found = measures(ovsw.inspect(model, x), "layers/0")
    expected = by_numpy(
        x,
        model(x),
        normal(4, 3),
        sample_axes=1,
        divide=False,
        slope=window,
        kernel_slope=np.ones_like,
    )
    del expected["blocked_weight_ratio"]  # it has no kernel_sign
    same(found, expected)


def test_binary_weights_or_activations_alone():
    weights, signs = dense(input_sign=None), dense(kernel_sign=None, scale=None)
    found = measures(ovsw.inspect(weights, normal(8, 4)), "")
    assert not {"positive_input_ratio", "input_gradient_ratio"} & found.keys()
    found = measures(ovsw.inspect(signs, normal(8, 4)), "")
    assert not {"blocked_weight_ratio", "nonfinite_weights"} & found.keys()
    assert found["constant_input_ratio"] == 0


def test_a_sign_that_standardises_passes_a_gradient_to_every_weight():
    """Of a constant gradient it passes none."""
    layer = dense(kernel_sign=ovsw.nn.standardized_sign)
    assert measures(ovsw.inspect(layer, normal(8, 4)), "")["blocked_weight_ratio"] == 0


def test_a_sharpening_sign_is_taken_at_its_sharpness():
    sign = ovsw.nn.SharpeningSign(1.0)
    layer = dense(input_sign=sign, normalize_input=False)
    x = 50 * normal(8, 4)
    shares = []
    for sharpness in (0.1, 10.0):
        sign.sharpness = sharpness
        shares.append(measures(ovsw.inspect(layer, x), "")["input_gradient_ratio"])
    assert shares[0] == 1
    assert shares[1] < 0.5


@pytest.mark.parametrize("kind", ["heads", "back"])
def test_several_axes_of_features_are_those_of_a_dense_layer(kind):
    options = {"kernel_sign": ovsw.nn.clipped_ste_sign, "rngs": RNGS}
    if kind == "heads":
        layer, x = ovsw.nn.BinaryLinearGeneral(4, (2, 3), **options), normal(5, 3, 4)
        flat, joined = ovsw.nn.BinaryDense(4, 6, **options), x
    else:
        layer = ovsw.nn.BinaryLinearGeneral((2, 3), 4, axis=(-2, -1), **options)
        x = normal(5, 3, 2, 3)
        flat, joined = ovsw.nn.BinaryDense(6, 4, **options), x.reshape(5, 3, 6)
    flat.latent_kernel[...] = layer.latent_kernel[...].reshape(flat.latent_kernel.shape)
    np.testing.assert_array_equal(layer(x).reshape(flat(joined).shape), flat(joined))
    same(measures(ovsw.inspect(layer, x), ""), measures(ovsw.inspect(flat, joined), ""))


# --- verdicts


class Audio(nnx.Module):
    """Frames of a spectrogram to one of ten words, as a new user would write it."""

    def __init__(self, activation, **options):
        rngs = nnx.Rngs(0)
        self.stem = nnx.Linear(16, 64, rngs=rngs)
        self.hidden = ovsw.nn.BinaryDense(64, 64, rngs=rngs, **options)
        self.norm = nnx.BatchNorm(64, momentum=0.9, rngs=rngs)
        self.head = nnx.Linear(64, 10, rngs=rngs)
        self.activation = activation

    def __call__(self, x):
        return self.head(self.norm(self.hidden(self.activation(self.stem(x)))))


def words(seed, count=512):
    """Ten classes that a real network tells apart, by chance 10 %."""
    means = 2 * normal(10, 16)
    labels = np.random.default_rng(seed).integers(0, 10, count)
    return means[labels] + normal(count, 16, seed=seed), labels


def accuracy_after_training(model):
    x, labels = words(1)
    optimizer = nnx.Optimizer(model, ovsw.ovsw_sgd(0.05), wrt=nnx.Param)
    model.train()

    @nnx.jit
    def step(model, optimizer):
        def loss(model):
            logits = model(x)
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

        optimizer.update(model, nnx.grad(loss)(model))

    for _ in range(60):
        step(model, optimizer)
    model.eval()
    x, labels = words(2)
    return (model(x).argmax(-1) == labels).mean()


def test_a_relu_before_a_binary_layer_is_told_and_hardtanh_is_fine():
    """The story of a network that stays at chance while nothing says why."""
    x, _ = words(1, 32)
    ill, well = Audio(nnx.relu), Audio(ovsw.nn.hardtanh)
    (row,) = ovsw.inspect(ill, x).rows
    assert row.name == "hidden"
    assert row.verdict == "every input sign is +1, since no input is negative"
    assert "hardtanh" in row.remedy
    assert row.numbers()["positive_input_ratio"] == 1
    assert ovsw.inspect(well, x).faults == {}
    assert accuracy_after_training(ill) < 0.2
    assert accuracy_after_training(well) > 0.9
    assert ovsw.inspect(well, x).faults == {}


def test_a_learned_threshold_is_another_remedy():
    options = {"input_sign": ovsw.nn.LearnedThresholdSign(64), "normalize_input": False}
    model = Audio(nnx.relu, **options)
    x, _ = words(1, 32)
    (row,) = ovsw.inspect(model, x).rows
    assert row.verdict == "every input sign is +1"
    assert "its thresholds are learned" in row.remedy
    assert accuracy_after_training(model) > 0.9
    assert "input sign" not in ovsw.inspect(model, x).rows[0].verdict


@pytest.mark.parametrize(
    ("change", "x", "words"),
    [
        ({}, normal(8, 4), "^fine$"),
        ({}, -np.abs(normal(8, 4)), "every input sign is -1$"),
        ({}, np.where(np.arange(400).reshape(100, 4), 1, -1), "99.8 % of the input signs are"),
        (
            {},
            np.random.default_rng(0).integers(0, 256, (8, 4), np.uint8),
            r"^every input sign is \+1, since no input is negative: they are uint8$",
        ),
        (
            {"normalize_input": False},
            1000 * normal(8, 4),
            r"^no input gets a gradient through the sign \(root mean square \d+\)$",
        ),
        (
            {},
            np.sign(normal(1, 4)) + 0.1 * normal(8, 4),
            "^100 % of the input channels have the same sign for all samples$",
        ),
        ({"scale": lambda kernel: 0 * kernel[0]}, normal(8, 4), "^100 % of the output channels"),
        (
            {
                "kernel_sign": ovsw.nn.clipped_ste_sign,
                "kernel_init": nnx.initializers.orthogonal(9),
            },
            normal(8, 4),
            "^the sign of .* latent weights? passes no gradient$",
        ),
        ({}, np.where(np.eye(8, 4), np.nan, normal(8, 4)), "^4 inputs are NaN or infinite"),
        (
            {"kernel_init": nnx.initializers.constant(np.inf)},
            normal(8, 4),
            "^16 latent weights are NaN or infinite",
        ),
    ],
)
def test_faults_are_named(change, x, words):
    found = ovsw.inspect(dense(**change), x.astype(x.dtype if x.dtype == np.uint8 else np.float32))
    assert re.search(words, found.rows[0].verdict), found.rows[0].verdict
    assert bool(found.faults) == (words != "^fine$")
    assert bool(found.rows[0].remedy) == bool(found.faults)


def test_networks_of_the_library_are_fine_from_the_start():
    model = ovsw.models.SmallResNet(widths=(8, 16), in_channels=1, rngs=nnx.Rngs(0))
    found = ovsw.inspect(model, normal(8, 8, 8, 1))
    assert set(verdicts(found).values()) == {"fine"}
    assert {row.name for row in found.rows} == set(
        ovsw.flip_metrics(ovsw.track_flip_state().init(nnx.state(model, nnx.Param)))
    ) - {"total"}


def test_one_sample_does_not_tell_what_is_constant():
    found = ovsw.inspect(dense(), normal(1, 4))
    assert "constant_input_ratio" not in found.rows[0].numbers()
    assert verdicts(found) == {"": "fine"}


# --- how it shows itself


def test_tables_name_layer_verdict_and_remedy():
    x, _ = words(1, 32)
    found = ovsw.inspect(Audio(nnx.relu), x)
    for text in (str(found), found.to_markdown(), found._repr_html_()):
        assert "hidden" in text
        assert "every input sign is +1" in text
        assert "put an activation with both signs in front of it" in text
    assert "<table>" in found._repr_html_()
    lines = found.to_markdown().splitlines()
    assert {line.count("|") for line in lines[:3]} == {10}


def test_the_dict_is_json_and_the_metrics_are_arrays():
    found = ovsw.inspect(Audio(nnx.relu), words(1, 32)[0])
    (row,) = json.loads(json.dumps(found.to_dict()))["rows"]
    assert row["name"] == "hidden"
    assert row["positive_input_ratio"] == 1
    assert row["faults"][0]["what"] == "every input sign is +1, since no input is negative"
    assert found.metrics()["hidden"]["positive_input_ratio"].dtype == jnp.float32
    assert "100 %" in str(ovsw.table(found.metrics()))


# --- arguments


def test_no_nan_is_made_where_a_layer_is_not_called():
    class Unused(nnx.Module):
        def __init__(self):
            self.dense, self.unused = dense(), dense()

        def __call__(self, x):
            return self.dense(x)

    with jax.debug_nans(True):
        found = ovsw.inspect(Unused(), normal(8, 4))
        assert verdicts(ovsw.inspect(Chosen(), normal(8, 4), jnp.array(False)))["left"]
    assert verdicts(found) == {"dense": "fine", "unused": "is not called"}
    assert "unused" in str(found)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((dense(), (8, 4)), ValueError, "input 0 is given by its shape"),
        ((dense(),), ValueError, "there is no input"),
        ((nnx.Linear(4, 4, rngs=RNGS), normal(8, 4)), ValueError, "no binary layer to inspect"),
        ((dense(), normal(8, 5)), ValueError, "can't be called with one float32 array"),
        ((ovsw.linen.BinaryDense(4), normal(8, 4)), TypeError, "Call ovsw.linen.inspect"),
    ],
)
def test_arguments_that_can_not_be_inspected(arguments, error, message):
    with pytest.raises(error, match=message):
        ovsw.inspect(*arguments)


def test_a_flag_that_is_no_bool():
    with pytest.raises((TypeError, ValueError), match="evaluation=1"):
        ovsw.inspect(dense(), normal(8, 4), evaluation=1)


def test_an_attribute_that_can_not_be_hashed_is_named():
    class Odd(nnx.Module):
        def __init__(self):
            self.dense = dense()
            self.names = nnx.static({"a": []})

        def __call__(self, x):
            return self.dense(x)

    with pytest.raises(TypeError, match="can't be hashed"):
        ovsw.inspect(Odd(), normal(8, 4))


# --- linen


class Linen(linen.Module):
    @linen.compact
    def __call__(self, x, train):
        x = linen.BatchNorm(use_running_average=not train, name="norm")(x)
        self.sow("taken", "by_first", x := linen.relu(x))
        x = linen.remat(ovsw.linen.BinaryDense, static_argnums=2)(8, name="first")(x, train)
        self.sow("taken", "by_second", x)
        sign = ovsw.linen.LearnedThresholdSign()
        x = ovsw.linen.BinaryDense(8, input_sign=sign, normalize_input=False, name="second")(
            x, train
        )
        scan = linen.scan(
            lambda layer, x, _: (layer(x, train=train), None),
            variable_axes={"params": 0},
            split_rngs={"params": True},
            length=3,
        )
        x, _ = scan(ovsw.linen.BinaryDense(8, name="stack"), x, None)
        self.sow("taken", "by_heads", x)
        x = ovsw.linen.BinaryDenseGeneral((2, 4), name="heads")(x, train)
        return linen.Dropout(0.5, deterministic=not train)(x)


@pytest.fixture(scope="module")
def linen_network():
    model, x = Linen(), normal(16, 8)
    return model, model.init(jax.random.key(0), x, False), x


@pytest.mark.parametrize("train", [True, False])
def test_linen_measures_what_nnx_does(linen_network, train):
    model, variables, x = linen_network
    rngs = {"dropout": jax.random.key(1)}
    found = ovsw.linen.inspect(model, variables, x, train=train, rngs=rngs)
    assert list(verdicts(found)) == ["first", "second", "stack", "heads"]
    assert verdicts(found)["first"] == "every input sign is +1, since no input is negative"
    mutable = ["taken", "batch_stats"]
    _, state = model.apply(variables, x, train=train, rngs=rngs, mutable=mutable)
    threshold = ovsw.nn.LearnedThresholdSign(8)
    twins = {
        "first": ovsw.nn.BinaryDense(8, 8, rngs=RNGS),
        "second": ovsw.nn.BinaryDense(8, 8, input_sign=threshold, normalize_input=False, rngs=RNGS),
        "heads": ovsw.nn.BinaryLinearGeneral(8, (2, 4), rngs=RNGS),
    }
    for name, layer in twins.items():
        layer.latent_kernel[...] = variables["params"][name]["latent_kernel"]
        taken = state["taken"][f"by_{name}"][-1]
        expected = ovsw.inspect(layer, taken, evaluation=not train)
        same(measures(found, name), measures(expected, ""))


def test_linen_is_traced_once_and_works_within_jit(linen_network):
    model, variables, x = linen_network
    plain = ovsw.linen.inspect(model, variables, x, train=False)
    compiled = jax.jit(lambda v, x: ovsw.linen.inspect(model, v, x, train=False))(variables, x)
    for name in verdicts(plain):
        same(measures(compiled, name), measures(plain, name))


def test_linen_arguments():
    model = ovsw.linen.BinaryDense(4, train=True)
    with pytest.raises(TypeError, match=r"Call ovsw.inspect\(model, x\)"):
        ovsw.linen.inspect(dense(), {}, normal(8, 4))
    with pytest.raises(TypeError, match="variables=None is no mapping"):
        ovsw.linen.inspect(model, None, normal(8, 4))
    with pytest.raises(ValueError, match="by its shape"):
        ovsw.linen.inspect(model, {"params": {}}, (8, 4))
    for variables in ({}, {"latent_kernel": jnp.ones((4, 4))}):
        with pytest.raises(ValueError, match="variables has no params, but"):
            ovsw.linen.inspect(model, variables, normal(8, 4))
    real, x = linen.Dense(3), normal(8, 4)
    variables = real.init(jax.random.key(0), x)
    with pytest.raises(
        ValueError, match=r"Dense has no binary layer .* such as ovsw.linen.BinaryConv\.(\n|$)"
    ):
        ovsw.linen.inspect(real, variables, x)


def test_linen_modules_that_can_not_be_hashed_are_compiled_once():
    traces = []

    def count(x):
        traces.append(x.shape)
        return x

    model = linen.Sequential([count, ovsw.linen.BinaryDense(4, train=True)])
    variables = model.init(jax.random.key(0), normal(8, 4))
    traces.clear()
    for seed in range(3):
        ovsw.linen.inspect(model, variables, normal(8, 4, seed=seed))
    assert len(traces) == 1


def test_an_empty_batch_has_nothing_to_tell():
    variables = {"params": {"latent_kernel": jnp.ones((4, 2, 2))}}
    heads = ovsw.linen.BinaryDenseGeneral((2, 2), train=True)
    nothing = np.zeros((0, 4), np.float32)
    with pytest.raises(
        ValueError, match=r"ovsw.inspect measures a batch.*\(0, 4\) holds no sample"
    ):
        ovsw.inspect(dense(), nothing)
    with pytest.raises(ValueError, match=r"ovsw.linen.inspect measures a batch, .* no sample"):
        ovsw.linen.inspect(heads, variables, nothing)


def test_a_model_of_shapes_can_not_be_run():
    shapes = nnx.eval_shape(lambda: ovsw.nn.BinaryDense(4, 4, rngs=nnx.Rngs(0)))
    with pytest.raises(ValueError, match=r"BinaryDense has shapes in place of weights"):
        ovsw.inspect(shapes, normal(8, 4))
