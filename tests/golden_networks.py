"""Whole networks with the reference's parameters, in float64: gradients, steps, evaluation."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import ovsw_jax as ovsw
from tests import golden
from tests.official_signs import official_kernel_sign

SAMPLES = 16  # entries of each parameter that the reference keeps


class Case(NamedTuple):
    """A network of the reference data."""

    network: Callable[..., nnx.Module]
    classes: int = 10
    decay_1d: bool = True
    small_norms: bool = False  # batch norms of images start at scale 1e-8 and bias 0


CASES = {
    "cResNet20": Case(ovsw.models.CifarResNet20),
    "cResNet18": Case(ovsw.models.CifarResNet18),
    "VGGSmall": Case(ovsw.models.VGGSmall),
    "ResNet18": Case(ovsw.models.ResNet18, classes=1000, decay_1d=False),
    "ResNet18_officialbn": Case(
        ovsw.models.ResNet18, classes=1000, decay_1d=False, small_norms=True
    ),
}


def with_prefix(data, prefix, *, without=("num_batches_tracked", "tracker", "weight_prev")):
    found = {
        key.removeprefix(prefix): data[key]
        for key in data
        if key.startswith(prefix) and not key.endswith(without)
    }
    assert found, f"no array below {prefix}"
    return found


class Functions:
    """A network as compiled functions of its parameters, statistics and images."""

    def __init__(self, network, classes):
        self.model = nnx.eval_shape(lambda: network(classes, rngs=nnx.Rngs(0)))
        for _, module in nnx.iter_modules(self.model):
            if isinstance(module, ovsw.nn.BinaryConv):
                module.kernel_sign = official_kernel_sign  # a latent weight may be exactly 0
        self.graph, self.params, statistics = nnx.split(self.model, nnx.Param, ...)
        self.statistics = jax.tree.map_with_path(
            lambda path, x: (jnp.ones if "var" in str(path) else jnp.zeros)(x.shape, jnp.float64),
            statistics,
        )
        self.gradients, self.evaluate = jax.jit(self._gradients), jax.jit(self._evaluate)

    def _gradients(self, params, statistics, images, labels):
        def loss_fn(params):
            model = nnx.merge(self.graph, params, statistics, copy=True)
            model.train()
            logits = model(images)
            loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
            return loss, (logits, nnx.state(model, nnx.Not(nnx.Param)))

        value, gradients = jax.value_and_grad(loss_fn, has_aux=True)(params)
        return *value, gradients

    def _evaluate(self, params, statistics, images):
        model = nnx.merge(self.graph, params, statistics, copy=True)
        model.eval()
        return model(images)

    def loaded(self, state_dict):
        """Parameters of a state dict without statistics, in float64."""
        model = nnx.clone(self.model)
        missing, unexpected = ovsw.models.load_torch(model, state_dict, strict=False)
        assert not unexpected
        assert all(".running_" in name for name in missing)
        params = nnx.state(model, nnx.Param)
        return jax.tree.map(lambda x: x.astype(jnp.float64), params)

    def named(self, params):
        """Parameters, or gradients of them, by PyTorch's names and in its layout."""
        return ovsw.models.torch_state_dict(nnx.merge(self.graph, params, self.statistics))

    def as_pytorch(self, statistics, images, steps):
        """Statistics with the unbiased running variances that PyTorch has after `steps`."""
        flat = dict(nnx.to_flat_state(statistics))
        start = 0.9**steps  # what is left of the initial 1
        for path, n in elements_per_channel(self.model, images.shape).items():
            variable = flat[(*path, "var")]
            corrected = start + (variable[...] - start) * n / (n - 1)
            flat[(*path, "var")] = variable.replace(corrected)
        return nnx.from_flat_state(flat)


compiled = functools.cache(Functions)


def elements_per_channel(model, shape):
    """Over how many numbers of a channel each batch norm averages: path -> number."""
    seen, call = {}, ovsw.nn.BatchNorm.__call__

    def counted(norm, x):
        seen[norm.path] = x.size // x.shape[-1]
        return call(norm, x)

    observed = nnx.clone(model)
    for path, module in nnx.iter_modules(observed):
        if isinstance(module, ovsw.nn.BatchNorm):
            module.path = path
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(ovsw.nn.BatchNorm, "__call__", counted)
        nnx.eval_shape(lambda model, x: model(x), observed, jax.ShapeDtypeStruct(shape, "float32"))
    assert seen
    return seen


class NetworkRun:
    """One training step, the forward pass of a second one, and an evaluation after both."""

    def __init__(self, name):
        self.case = CASES[name]
        images = images_of(name)  # first: it may skip
        self.data = with_prefix(golden.load("models"), f"model/{name}/")
        self.names = [str(n) for n in self.data["param_names"]]
        functions = compiled(self.case.network, self.case.classes)
        labels = jnp.asarray(self.data["y"])
        lr, momentum, decay, lam, tau, mu, sigma = map(float, self.data["hparams"])
        rules = optax.chain(
            ovsw.scale_by_ags(lam), ovsw.silence_aware_decay(tau, momentum=mu, threshold=sigma)
        )
        tx = ovsw.ovsw_sgd(
            lr,
            momentum=momentum,
            weight_decay=decay,
            lam=lam,
            tau=tau,
            flip_momentum=mu,
            threshold=sigma,
            decay_1d=self.case.decay_1d,
        )

        @jax.jit
        def step(params, gradients):
            hooked, _ = rules.update(gradients, rules.init(params), params)
            updates, _ = tx.update(gradients, tx.init(params), params)
            return hooked, optax.apply_updates(params, updates)

        params = functions.loaded(self._parameters())
        self.loss, (self.logits, statistics), gradients = functions.gradients(
            params, functions.statistics, images, labels
        )
        hooked, params = step(params, gradients)
        named = functions.named
        self.gradients, self.hooked = self._summary(named(gradients)), self._summary(named(hooked))
        self.parameters = self._summary(named(params))
        self.loss_after, (self.logits_after, statistics), _ = functions.gradients(
            params, statistics, images, labels
        )
        self.eval_logits = functions.evaluate(
            params, functions.as_pytorch(statistics, images, steps=2), images
        )

    def _parameters(self):
        arrays = {}
        for number, name in enumerate(self.names):
            shape = shape_of(self.data["param_shapes"][number])
            array = generated_parameter(name, int(self.data["seed"]) + 7919 * number, shape)
            if self.case.small_norms and len(shape) == 1 and not name.startswith(("bn2", "fc")):
                array = np.full(shape, 1e-8 if name.endswith("weight") else 0, np.float32)
            arrays[name] = array
        return arrays

    def _summary(self, named):
        """What the reference keeps of parameters: the norm and some entries of each."""
        arrays = [named[n].ravel() for n in self.names]
        samples = [a[(np.arange(SAMPLES) * 2654435761) % a.size] for a in arrays]
        return np.array([np.linalg.norm(a) for a in arrays]), np.array(samples)


def images_of(name):
    if name.startswith("ResNet18"):
        shape = (4, 3, 64, 64)
        stream = golden.LinearCongruential(int(np.prod(shape)), 4242)
        images = np.float32(4 * stream.uniform()).reshape(shape)
    else:
        images = golden.load("model_step")["x"][::2]
    return jnp.asarray(np.moveaxis(images, 1, -1), jnp.float64)


def shape_of(text):
    return tuple(int(n) for n in str(text).strip("()").split(",") if n.strip())


def generated_parameter(name, seed, shape):
    """The manifest's formula for parameters that are regenerated, in PyTorch's layout."""
    u = golden.LinearCongruential(int(np.prod(shape)), seed).uniform().reshape(shape)
    if len(shape) == 4:
        value = u * np.sqrt(24 / np.prod(shape[1:]))
    elif len(shape) == 2:
        value = u * np.sqrt(12 / shape[1])
    elif name.endswith("weight") and not name.startswith("nonlinear"):
        value = 1 + 0.5 * u
    else:
        value = 0.2 * u
    return value.astype(np.float32)
