"""Every public function with any arguments: it works, or says in its own words what is wrong.

What a call with those of strange_arguments.py may do:

- give a result, finite where the arguments are, of the documented shape and dtype;
- raise ValueError or TypeError from the library's own check, with the argument named.

HYPOTHESIS_PROFILE=search pytest tests/test_public_functions.py tries 250 cases of each name.
"""

import contextlib
import functools
import inspect
import tempfile
import traceback
from pathlib import Path

import c_paths
import flax.errors
import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import public_transforms
import pytest
from flax import linen, nnx
from hypothesis import given
from hypothesis import strategies as st
from strange_arguments import (
    MODULE_OPTIONS,
    OPTIONS,
    arrays,
    coefficients,
    dtypes,
    inputs,
    junk,
    kinds,
    masks,
    models,
    not_callable,
    opt_states,
    params_trees,
)

import ovsw_jax as ovsw

LIBRARY = Path(ovsw.__file__).parent
CASES = max(5, hypothesis.settings().max_examples // 4)

PROPERTIES = {}


def covers(*names):
    """Registers a property of public functions; it is called with `data` and the function."""

    def register(check):
        for name in names:
            PROPERTIES[name] = check
        return check

    return register


def public(name):
    owner = ovsw
    for part in name.split("."):
        owner = getattr(owner, part)
    return owner


def public_names():
    """All of them but the modules, the states, which only the transforms make, and protocols."""
    names = {n for n in ovsw.__all__ if not inspect.ismodule(public(n))}
    names -= {n for n in names if hasattr(public(n), "_fields") or n == "ReportsMetrics"}
    for module in ("nn", "linen", "models", "deploy"):
        names |= {f"{module}.{n}" for n in public(module).__all__}
    return names


def test_every_public_name_has_a_property():
    assert set(PROPERTIES) == public_names()


# Of kernels with three axes, which are drawn too.
@pytest.mark.filterwarnings("ignore:all axes but the last are taken as one filter")
@pytest.mark.parametrize("name", sorted(public_names()))
@hypothesis.settings(max_examples=CASES)
@given(data=st.data())
def test_any_arguments(name, data):
    with contextlib.suppress(RefusedError):
        PROPERTIES[name](data, public(name))


class RefusedError(Exception):
    """The library refused the arguments, as it may, which ends the case."""


def attempt(function, *arguments, naming=(), **keywords):
    """The result, or RefusedError if the library said what is wrong."""
    names = [*naming, *keywords]
    try:
        return function(*arguments, **keywords)
    except (ValueError, TypeError) as error:
        where = traceback.extract_tb(error.__traceback__)[-1].filename
        if LIBRARY in Path(where).parents and any(n in str(error) for n in names):
            raise RefusedError from error
        raise AssertionError(f"no word of ours on {names}: {error!r}") from error


def well_behaved(*trees):
    """Whether all numbers are finite and far from the limits of float16."""
    leaves = [np.asarray(x) for x in jax.tree.leaves(trees)]
    return all(x.dtype != object and np.all(np.abs(x.astype(complex)) < 100) for x in leaves)


def assert_finite(tree):
    for x in jax.tree.leaves(tree):
        assert np.all(np.isfinite(np.asarray(x, complex))), tree


def some(data, names, options, most):
    """Up to so many of the arguments."""
    given = data.draw(st.sets(st.sampled_from(names), max_size=most), label="given")
    return {n: data.draw(options.get(n, coefficients), label=n) for n in sorted(given)}


# ---- transforms


@covers(*public_transforms.NAMES)
def a_transform(data, make):
    names = list(inspect.signature(make).parameters)
    naming = [n.removeprefix("flip_") for n in names]
    required = {n: v for n, v in public_transforms.REQUIRED.items() if n in names}
    keywords = required | some(data, names, OPTIONS, 3)
    tx = attempt(make, naming=naming, **keywords)
    params = data.draw(params_trees, label="params")
    named = [*names, "params", "latent weights", "mask"]
    state = attempt(tx.init, params, naming=named)
    grads = jax.tree.map(lambda x: jnp.flip(jnp.asarray(x)) if np.ndim(x) else x, params)
    if data.draw(st.integers(0, 3)) == 0:
        grads = data.draw(params_trees, label="gradients")
    for _ in range(2):
        updates, state = attempt(
            tx.update, grads, state, params, naming=[*named, "gradient", "gradients"]
        )
    assert jax.tree.structure(updates) == jax.tree.structure(grads)
    for before, after in zip(jax.tree.leaves(grads), jax.tree.leaves(updates), strict=True):
        assert np.shape(before) == np.shape(after)
    moderate = all(not isinstance(v, float) or abs(v) <= 1 for v in keywords.values())
    if moderate and well_behaved(params, grads):
        assert_finite((updates, [x for x in jax.tree.leaves(state) if jnp.ndim(x) == 0]))


# ---- states and masks


@covers("flip_metrics")
def metrics(data, flip_metrics):
    found = attempt(flip_metrics, data.draw(opt_states()), naming=["optimizer state", "layer"])
    assert "total" in found
    assert_finite(found)
    ratios = [v for layer in found.values() for k, v in layer.items() if k != "grad_weight_ratio"]
    assert all(0 <= v <= 1 for v in ratios)


@covers("silent_mask", "never_flipped_mask")
def a_mask(data, read):
    mask = attempt(read, data.draw(opt_states()), naming=["optimizer state", "layer"])
    assert all(x.dtype == bool for x in jax.tree.leaves(mask))


@covers("convert_flip_state")
def conversion(data, convert):
    opt_state = data.draw(opt_states(), label="opt_state")
    kind = data.draw(kinds | junk, label="state")
    dtype = data.draw(st.sampled_from([None, np.float32, "float64", "int8", 3, "x"]), label="dtype")
    naming = ["optimizer state", "state=", "dtype="]
    converted = attempt(convert, opt_state, kind, dtype=dtype, naming=naming)
    never = ovsw.never_flipped_mask
    try:
        before = never(opt_state)
    except ValueError:  # tracked twice
        return
    assert jax.tree.all(jax.tree.map(lambda a, b: np.all(a == b), never(converted), before))


@covers("latent_mask")
def latent(data, latent_mask):
    tree = data.draw(params_trees | junk)
    mask = latent_mask(tree)
    assert jax.tree.structure(mask) == jax.tree.structure(tree)
    assert all(isinstance(flag, bool) for flag in jax.tree.leaves(mask))


@covers("silence_horizon")
def horizon(data, silence_horizon):
    momentum, threshold = data.draw(st.tuples(st.floats(0.5, 1) | junk, st.floats(0, 0.1) | junk))
    steps = attempt(silence_horizon, momentum=momentum, threshold=threshold)
    assert isinstance(steps, int)
    assert steps >= 1


@covers("threshold_for_horizon")
def threshold(data, threshold_for_horizon):
    momentum, steps = data.draw(st.tuples(st.floats(0.5, 1) | junk, st.integers(1, 9999) | junk))
    sigma = attempt(threshold_for_horizon, momentum=momentum, steps=steps)
    assert 0 < sigma <= 1
    assert abs(ovsw.silence_horizon(momentum, sigma) - steps) <= 1e-12 * steps


# ---- signs, factors and activations


@covers("nn.sign", "nn.ste_sign", "nn.clipped_ste_sign", "nn.approx_sign")
@covers("nn.swish_sign", "nn.tanh_sign", "nn.hardtanh", "models.hardtanh")
def elementwise(data, function):
    x = data.draw(arrays() | junk, label="x")
    keywords = {}
    for name in list(inspect.signature(function).parameters)[1:]:
        if data.draw(st.booleans()):
            keywords[name] = data.draw(st.floats(0.01, 10) | junk, label=name)
    y = attempt(function, x, **keywords, naming=["x"])
    same_as(x, y)
    if function is not ovsw.nn.hardtanh:
        assert np.all(np.isin(np.asarray(y, np.float64), [-1, 1]))
    if not jnp.issubdtype(jnp.result_type(x), jnp.floating):
        return
    slope = attempt(
        lambda x: jax.vjp(lambda x: function(x, **keywords), x)[1](jnp.ones_like(y)),
        x,
        naming=["x", *keywords],
    )
    same_as(x, slope[0])
    if well_behaved(x, keywords):
        assert_finite(slope)


@covers("nn.compute_for")
def platforms(data, function):
    name = data.draw(st.sampled_from(["cpu", "gpu", "tpu"]) | junk, label="platform")
    with attempt(function, name, naming=["platform"]):
        assert jnp.all(jax.jit(ovsw.nn.hardtanh)(jnp.full(2, 3.0)) == 1)


@covers("nn.sign_with_gradient")
def a_sign_of_the_users(data, make):
    derivatives = [lambda x: 2 * x, lambda x, a=2.0: x / a, lambda x: None, lambda x: x[None]]
    drawn = st.sampled_from(derivatives) | not_callable
    derivative = data.draw(drawn, label="derivative")
    elementwise(data, attempt(make, derivative, naming=["derivative"]))


def same_as(x, y):
    assert y.shape == jnp.shape(x)
    assert y.dtype == jnp.result_type(x)


@covers("nn.mean_magnitude", "nn.standardize_kernel", "nn.standardized_scale")
@covers("nn.magnitude_aware_sign", "nn.standardized_sign")
def of_a_kernel(data, function):
    kernel = data.draw(arrays() | junk, label="kernel")
    keywords = {}
    if function is ovsw.nn.standardized_sign and data.draw(st.booleans()):
        keywords["sign"] = data.draw(MODULE_OPTIONS["sign"])
    y = attempt(function, kernel, **keywords, naming=["kernel"])
    per_filter = function in (ovsw.nn.mean_magnitude, ovsw.nn.standardized_scale)
    assert y.shape == (np.shape(kernel)[-1:] if per_filter else np.shape(kernel))
    assert y.dtype == jnp.result_type(kernel)
    if well_behaved(kernel):
        assert_finite(y)


def module_keywords(data, make, required):
    """Arguments of a module: those required, of which all fit mostly, and up to two others."""
    names = [n for n in inspect.signature(make).parameters if n in MODULE_OPTIONS]
    others = [n for n in names if n not in required]
    keywords = required | some(data, others, MODULE_OPTIONS, 2)
    if data.draw(st.integers(0, 3)) == 0:
        name = data.draw(st.sampled_from(sorted(required)))
        keywords[name] = data.draw(MODULE_OPTIONS[name], label=name)
    return keywords


@covers("nn.BinaryConv", "nn.BinaryDense", "nn.BinaryLinearGeneral", "nn.BatchNorm")
@covers("nn.LearnedThresholdSign", "nn.PReLU", "nn.RPReLU")
def a_layer(data, make):
    arguments = inspect.signature(make.__init__).parameters
    fitting = {"in_features": 3, "out_features": 2, "features": 3, "kernel_size": (2, 2)}
    required = {n: v for n, v in fitting.items() if n in arguments}
    keywords = module_keywords(data, make.__init__, required)
    x = data.draw(inputs | junk, label="x")
    layer = attempt(make, rngs=nnx.Rngs(0), **keywords)
    if data.draw(st.booleans()):
        layer.eval()
    y = attempt(layer, x, naming=["input", "dtype", *arguments])
    assert y.shape[-1:] == (keywords.get("out_features", np.shape(x)[-1]),)
    if well_behaved(x, keywords.get("negative_slope_init", 0)):
        assert_finite(y)


@covers("linen.BinaryConv", "linen.BinaryDense", "linen.BinaryDenseGeneral")
@covers("linen.LearnedThresholdSign")
@covers("linen.PReLU", "linen.RPReLU")
def a_linen_layer(data, make):
    arguments = inspect.signature(make).parameters
    fitting = {"features": 2, "kernel_size": (2, 2)}
    required = {n: v for n, v in fitting.items() if n in arguments}
    keywords = module_keywords(data, make, required or {"param_dtype": np.float32})
    x = data.draw(inputs | junk, label="x")
    training = {"train": data.draw(st.booleans())} if "use_bias" in arguments else {}
    layer = attempt(make, **keywords)
    y, _ = attempt(
        layer.init_with_output,
        jax.random.key(0),
        x,
        naming=["input", "dtype", *arguments],
        **training,
    )
    assert y.shape[-1:] == (keywords.get("features", np.shape(x)[-1]),)


@covers("nn.SharpeningSign", "linen.SharpeningSign")
def a_sharpening_sign(data, make):
    functions = st.sampled_from([ovsw.nn.tanh_sign, ovsw.nn.swish_sign]) | junk
    arguments = {"sharpness": data.draw(st.floats() | junk), "sign": data.draw(functions)}
    x = data.draw(inputs | junk, label="x")
    sign = attempt(make, **arguments)
    if make is ovsw.nn.SharpeningSign:
        y = attempt(sign, x, naming=["x"])
    else:
        key = jax.random.key(0)
        y, _ = attempt(sign.init_with_output, key, x, naming=["x", *arguments])
    same_as(x, y)


# ---- blocks, networks, graphs


def outlined(make, **keywords):
    return nnx.eval_shape(lambda: make(rngs=nnx.Rngs(0), **keywords))


def output(module, x):
    if not isinstance(x, jax.Array | np.ndarray) or x.dtype.kind in "OU":
        return module(x)  # which nothing can trace
    return nnx.eval_shape(lambda m, x: m(x), module, x)


@covers("models.BasicBlock", "models.BiRealBlock", "models.ReActBlock")
@covers("models.ConvShortcut", "models.PadShortcut")
def a_block(data, make):
    arguments = inspect.signature(make.__init__).parameters
    required = {"in_features": 2, "features": 2, "strides": 2}
    keywords = module_keywords(data, make.__init__, required)
    x = data.draw(inputs | junk, label="x")
    block = attempt(outlined, make, naming=arguments, **keywords)
    y = attempt(output, block, x, naming=["input", "images", "dtype", *arguments])
    assert y.shape[-1] == keywords["features"]


@covers("models.SmallResNet", "models.CifarResNet20", "models.CifarResNet18")
@covers("models.ResNet18", "models.ResNet34", "models.VGGSmall")
def a_network(data, make):
    arguments = inspect.signature(make.__init__).parameters
    keywords = module_keywords(data, make.__init__, {"num_classes": 2, "in_channels": 1})
    x = data.draw(inputs | junk, label="x")
    hypothesis.assume(
        any(not isinstance(v, int) or v < 1 for v in keywords.values())
        or data.draw(st.integers(0, 5)) == 0
    )
    network = attempt(outlined, make, naming=arguments, **keywords)
    y = attempt(output, network, x, naming=["input", "images", "dtype", *arguments])
    assert y.shape == (len(x), keywords["num_classes"])


@covers("models.TorchNames")
def a_table_of_names(data, make):
    names = st.sampled_from(["layers", "layers.0", "a.b", ""]) | junk.filter(lambda x: x == x)
    tables = st.dictionaries(names.filter(hashable), names, max_size=2) | junk
    keywords = {n: data.draw(tables, label=n) for n in ("renamed", "flattened")}
    table = attempt(make, **keywords, naming=["renamed", "flattened"])
    assert isinstance(table.of(("layers", 0, "kernel")), str)


def hashable(x):
    try:
        hash(x)
    except TypeError:
        return False
    return True


@covers("models.load_torch", "models.torch_state_dict")
def weights_of_pytorch(data, function):
    model = data.draw(models, label="model")
    names = data.draw(st.sampled_from([ovsw.models.TorchNames()] * 3) | junk, label="names")
    naming = ["model", "names", "state_dict", "flattened"]
    if isinstance(model, nnx.Module):
        model = nnx.clone(model)
    found = attempt(ovsw.models.torch_state_dict, model, names, naming=naming)
    assert all(isinstance(x, np.ndarray) for x in found.values())
    if function is ovsw.models.load_torch:
        name = data.draw(st.sampled_from(sorted(found) or ["a"]) | junk.filter(hashable))
        given = data.draw(
            st.just({**found, name: data.draw(arrays() | junk)}) | junk, label="given"
        )
        assert attempt(function, model, given, names, naming=naming) == ((), ())
        assert ovsw.models.torch_state_dict(model, names).keys() == found.keys()


@covers("binarize")
def binarized(data, binarize):
    model = data.draw(models, label="model")
    options = ["scale", "input_sign", "kernel_sign", "normalize_input", "features"]
    keywords = some(data, options, MODULE_OPTIONS, 2)
    if data.draw(st.booleans()):
        functions = [lambda path, layer: True, lambda path, layer: path == ("layers", 1)]
        keywords["where"] = data.draw(st.sampled_from(functions) | junk, label="where")
    network = attempt(binarize, model, **keywords, naming=["binarize", "layer", "nnx.Conv"])
    assert type(network) is type(model) or isinstance(model, nnx.Linear)


@covers("binarize_report")
def reported(data, report):
    model = data.draw(models, label="model")
    options = ["scale", "input_sign", "kernel_sign", "normalize_input", "features"]
    keywords = some(data, options, MODULE_OPTIONS, 1)
    keywords["where"] = data.draw(st.sampled_from([None, ovsw.skip_narrow]) | junk, label="where")
    shape = data.draw(st.sampled_from([(1, 2), (1, 3), None]) | junk, label="shape")
    shapes = [] if shape is None else [shape]
    naming = ["binarize", "input_shape", "where"]
    found = attempt(report, model, *shapes, **keywords, naming=naming)
    assert str(found)
    assert found.binary_share is None or 0 <= found.binary_share <= 1


@covers("skip_depthwise", "skip_squeeze_excite", "skip_narrow")
def a_refinement(data, where):
    layer = data.draw(st.sampled_from([linear(2), linear(70), depthwise()]), label="layer")
    path = data.draw(st.lists(st.text() | st.integers(0, 3)).map(tuple), label="path")
    assert isinstance(where(path, layer), bool)
    assert (where & where)(path, layer) == where(path, layer)


def linear(features):
    return nnx.eval_shape(lambda: nnx.Linear(features, 2, rngs=nnx.Rngs(0)))


def depthwise():
    make = lambda: nnx.Conv(4, 4, (3, 3), feature_group_count=4, rngs=nnx.Rngs(0))  # noqa: E731
    return nnx.eval_shape(make)


@covers("inspect")
def inspected(data, inspect):
    model = data.draw(st.sampled_from(DENSE) | models, label="model")
    x = data.draw(inputs | junk, label="x")
    evaluation = {"evaluation": data.draw(st.booleans() | junk)} if data.draw(st.booleans()) else {}
    naming = ["ovsw.inspect", "can't be called", "there is no input", "input_shape", "nspect"]
    found = attempt(inspect, model, x, **evaluation, naming=naming)
    well_inspected(found)


DENSE = [ovsw.nn.BinaryDense(3, 2, rngs=nnx.Rngs(0)), ovsw.nn.BinaryDense(2, 2, rngs=nnx.Rngs(0))]


@covers("linen.inspect")
def inspected_in_linen(data, inspect):
    module = data.draw(st.just(ovsw.linen.BinaryDense(2, train=True)) | models, label="module")
    x = data.draw(inputs | junk, label="x")
    variables = {"params": {"latent_kernel": jnp.ones((3, 2))}}
    variables = data.draw(st.just(variables) | junk, label="variables")
    naming = ["inspect", "input", "dtype", "variables"]
    with contextlib.suppress(flax.errors.FlaxError):  # linen's own, of a kernel of another shape
        well_inspected(attempt(inspect, module, variables, x, naming=naming))


def well_inspected(found):
    assert str(found)
    for row in found.rows:
        numbers = row.numbers()
        assert all(0 <= v <= 1 for k, v in numbers.items() if k.endswith("_ratio"))


@covers("table")
def a_table(data, table):
    numbers = st.dictionaries(st.text(), st.floats() | coefficients, max_size=2)
    metrics = data.draw(st.dictionaries(st.text(), numbers, max_size=3) | junk, label="metrics")
    shown = attempt(table, metrics, naming=["metrics"])
    assert isinstance(str(shown), str)
    assert shown.to_markdown()


@covers("filter_axes", "layer_axes", "linen.filter_axes", "linen.layer_axes")
def axes_of_layers(data, function):
    in_linen = "linen" in function.__module__
    binary = linen_stack() if in_linen else nnx_stack()
    model = data.draw(st.just(binary) | models, label="model")
    keywords = {
        "mask": data.draw(masks | not_callable, label="mask"),
        "stacked": data.draw(st.sampled_from([None, 0, -1]) | junk, label="stacked"),
    }
    x = [data.draw(st.just((4, 2, 8)) | inputs | junk, label="x")] if in_linen else []
    named = ["filter_axes", "latent weights", "module", "input"]
    found = attempt(function, model, *x, **keywords, naming=named)
    assert all(isinstance(axis, int) for axis in jax.tree.leaves(found))


def nnx_stack():
    return nnx.eval_shape(
        lambda: nnx.vmap(lambda rngs: ovsw.nn.BinaryDense(8, 3, rngs=rngs))(nnx.Rngs(0).split(4))
    )


def linen_stack():
    each = {"variable_axes": {"params": 0}, "split_rngs": {"params": True}}
    return linen.vmap(ovsw.linen.BinaryDense, **each)(3, train=True)


@covers("summary")
def summarised(data, summary):
    model = data.draw(models, label="model")
    shape = data.draw(st.sampled_from([(1, 2), (0, 2), (3, 4, 2), (1, 3)]) | junk, label="shape")
    dtype = data.draw(dtypes, label="dtype")
    counted = attempt(
        summary, model, shape, dtype=dtype, naming=["summary", "input_shape", "model"]
    )
    assert counted.total.training_bytes >= 0
    assert str(counted)
    assert counted.to_markdown()


# ---- frozen networks


@covers("deploy.freeze", "deploy.FrozenNetwork")
def a_frozen_network(data, freeze):
    if freeze is ovsw.deploy.FrozenNetwork:  # made by `freeze` alone
        freeze = ovsw.deploy.freeze
    model = data.draw(models | junk, label="model")
    shape = data.draw(st.sampled_from([(2, 4), (1, 6, 6, 3), (3,), ()]) | junk, label="shape")
    keywords = {}
    if data.draw(st.booleans()):
        keywords["classes"] = data.draw(junk, label="classes")
    frozen = attempt(
        freeze, model, shape, **keywords, naming=["input", "model", "ovsw.deploy", "frozen"]
    )
    y = attempt(frozen, data.draw(arrays() | junk, label="x"), naming=["images"])
    assert y.shape[1:] == frozen.output_shape


@covers("deploy.compile")
def a_compiled_network(data, compile_network):
    if c_paths.COMPILER is None or data.draw(st.booleans()):
        attempt(compile_network, data.draw(junk, label="network"), naming=["network"])
    run = compiled_layer(compile_network)
    y = attempt(run, data.draw(arrays() | junk, label="x"), naming=["images"])
    assert y.shape[-1:] == run.output_shape


@functools.cache
def compiled_layer(compile_network):
    frozen = ovsw.deploy.freeze(ovsw.nn.BinaryDense(4, 2, rngs=nnx.Rngs(0)), (1, 4))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CC", f"{c_paths.COMPILER} -O0")
        return compile_network(frozen)


@covers("deploy.Preprocessing")
def a_preprocessing(data, make):
    numbers = st.lists(st.floats(), max_size=3) | junk
    made = attempt(make, mean=data.draw(numbers), std=data.draw(numbers))
    assert len(made.mean) == len(made.std) > 0
    assert all(value > 0 for value in made.std)
    images = data.draw(st.sampled_from([np.uint8, np.int32, np.float32]), label="dtype")
    channels = data.draw(st.integers(1, 3), label="channels")
    found = attempt(made, np.full((2, channels), 255, images), naming=["images"])
    expected = (1 - np.array(made.mean, np.float32)) / np.array(made.std, np.float32)
    np.testing.assert_allclose(found, np.broadcast_to(expected, (2, channels)), rtol=1e-4)


@covers("models.pretrained", "models.Pretrained")
def a_pretrained(data, make):
    name = data.draw(st.sampled_from(["digits", "Digits", "../digits", "", 3]), label="name")
    net = attempt(make, name, naming=[f"called {name!r}"])
    shape = data.draw(st.sampled_from([(8, 8, 1), (8, 8, 3), (8, 8), (2, 8, 8, 1), (0, 8, 8, 1)]))
    dtype = data.draw(st.sampled_from([np.uint8, np.float32]))
    found = attempt(net.predict, np.ones(shape, dtype), naming=["images"])
    assert found.dtype == np.int32
    assert found.shape == shape[:1]


@covers("deploy.load")
def a_file_of_anything(data, load):
    with tempfile.NamedTemporaryFile() as file:
        file.write(data.draw(st.binary(max_size=100)))
        file.flush()
        attempt(load, file.name, naming=["is no frozen network"])
