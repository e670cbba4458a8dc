"""The networks that can be trained by name, and a network as pure functions of its state."""

import functools
import importlib
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx, traverse_util

import ovsw_jax as ovsw
from experiments.config import Config
from experiments.config.choices import choose
from experiments.training.trainable import (
    abstract,
    as_logits,
    check_params,
    check_same_state,
    check_same_structure,
    modes,
)

_SIGNS_ONLY = partial(ovsw.nn.BinaryConv, kernel_sign=None, scale=None)
_REAL = partial(
    nnx.Conv,
    use_bias=False,
    kernel_init=nnx.initializers.variance_scaling(2.0, "fan_in", "normal"),
)


class Row(NamedTuple):
    """A network that can be trained by name.

    Attributes:
      make: called as make(classes, in_channels=..., rngs=...), and with conv=, activation= or
        dtype= where a run asks for it; returns an NNX module.
      real: more arguments of `make`, for a network without signs (`Config.binary` is "none").
    """

    make: Callable[..., nnx.Module]
    real: Mapping[str, Any] = MappingProxyType({})

    def options(self, binary: str, dtype: str) -> dict[str, Any]:
        """The arguments of `make` by which a run says what is binary, and in which dtype."""
        kinds: dict[str, dict[str, Any]] = {
            "both": {},
            "activations": {"conv": _SIGNS_ONLY},
            "none": {"conv": _REAL, "activation": nnx.relu, **self.real},
        }
        return kinds[binary] | ({} if dtype == "float32" else {"dtype": jnp.dtype(dtype)})


# Batch norms start at next to nothing in ImageNet's networks, which only signs don't notice.
_AT_ONE = {"norm_scale": 1.0}
NETWORKS = {
    "small": Row(ovsw.models.SmallResNet),
    "tiny": Row(partial(ovsw.models.SmallResNet, widths=(16, 32, 64), stem_strides=4)),
    "resnet20": Row(ovsw.models.CifarResNet20),
    "resnet18": Row(ovsw.models.CifarResNet18),
    "vgg-small": Row(ovsw.models.VGGSmall),
    "imagenet-resnet18": Row(ovsw.models.ResNet18, real=_AT_ONE),
    "imagenet-resnet34": Row(ovsw.models.ResNet34, real=_AT_ONE),
}


def find_network(name: str) -> Row:
    """The row of the network called `name`, or of a user's own as package.module:Class.

    Raises:
      ValueError: if there is none.
    """
    module, colon, attribute = name.partition(":")
    if not colon:
        return choose("network", name, NETWORKS, "or your own, as package.module:Class")
    try:
        made = getattr(importlib.import_module(module), attribute)
        if not callable(made):
            raise TypeError(f"it is {made!r}")
    except Exception as error:  # of the user's code: of any kind
        raise ValueError(
            f"network {name!r} can't be imported: {type(error).__name__}: {error}. Give "
            "package.module:Class of an NNX module made as Class(classes, in_channels=..., "
            "rngs=...), in a package that Python finds from here."
        ) from error
    return Row(made)


class KernelAxes(NamedTuple):
    """What the layers of a network say of their latent kernels.

    Attributes:
      filter: tree of the axes that make up one filter, as `ovsw.filter_axes` makes it.
      layer: tree of the axes that make up one layer, as `ovsw.layer_axes` makes it.
      stacked: paths of the kernels that hold several layers.
    """

    filter: Any
    layer: Any
    stacked: tuple[str, ...]


class Network:
    """A network whose parameters and batch statistics are plain pytrees.

    `shapes` are those of parameters and statistics. Everything but `nnx.Param` counts as
    statistics, random keys and caches too: it is carried from step to step. `nnx.Intermediate`,
    which is there for inspection, is not. `axes` are those of its latent kernels, None without
    latent kernels.

    If its `__call__` has an argument that says whether it trains (train, training, is_training,
    deterministic, use_running_average), it gets that argument.

    Steps jit plain pytrees, not NNX modules: that costs a tenth of the Python time of `nnx.jit`
    per step. All optimizers share one network, so its initialisation compiles once.
    """

    def __init__(
        self,
        name: str,
        classes: int,
        image_shape: tuple[int, ...],
        *,
        binary: str = "both",
        dtype: str = "float32",
        batch_norm_groups: int = 1,
    ):
        """Describes the network; nothing is computed yet.

        Args:
          name: as for `find_network`.
          classes: number of logits.
          image_shape: (height, width, channels) of the images.
          binary: "both" activations and weights, "activations" only, or "none": then the
            network's constructor is given `conv` and `activation`.
          dtype: of the forward pass, as the constructor's `dtype`; parameters stay float32.
          batch_norm_groups: `batch_groups` of every `ovsw.nn.BatchNorm`.

        Raises:
          ValueError: if there is no such network, it can't be made or called, gives no
            (batch, classes) logits, has no latent weights where it should, does not keep the
            structure, shapes and dtypes of its state, or has a batch norm that knows no parts.
        """
        row = find_network(name)
        options = row.options(binary, dtype)
        self.name, self._classes = name, classes
        self._make_for = partial(row.make, in_channels=image_shape[-1], **options)
        make = partial(self._make_for, classes)
        self._make = make if batch_norm_groups == 1 else _in_groups(make, batch_norm_groups)
        takes = "".join(f", {option}=..." for option in ("in_channels", *options, "rngs"))
        try:
            model = abstract(lambda rngs: self._make(rngs=rngs))
            self._model, self._image_shape = model, image_shape
            self._graph = nnx.split(model, nnx.Param, ...)[0]
            stacked = jax.eval_shape(self.init, jax.random.split(jax.random.key(0), 1))
            self.shapes = jax.tree.map(
                lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), stacked
            )
            check_params(self.shapes[0], binary)
            self.axes = _kernel_axes(model) if binary == "both" else None
            # A network of one's own may fit one size of a batch only, and the last one is smaller.
            counts = (2, 3) if ":" in name else (2,)
            given = {
                count: self._logits(count, image_shape)
                for count in (batch_norm_groups * n for n in counts)
            }
        except Exception as error:  # of the user's code: of any kind
            raise ValueError(
                f"network {name!r} can't be trained on images of {image_shape}: "
                f"{type(error).__name__}: {str(error).rstrip('.')}. It must be an NNX module with "
                f"binary layers, made as Class(classes{takes}), that takes (batch, height, width, "
                "channels)."
            ) from error
        for count, shapes in given.items():
            for shape in shapes:
                if shape != (count, classes):
                    raise ValueError(
                        f"network {name!r} gives {shape} for {count} images of {classes} classes; "
                        f"it must give logits of shape {(count, classes)}."
                    )

    def _logits(self, count: int, image_shape: tuple[int, ...]) -> list[tuple[int, ...]]:
        """Shapes of what it gives for so many images, in training and in evaluation."""
        images = jax.ShapeDtypeStruct((count, *image_shape), jnp.float32)
        trained, statistics = jax.eval_shape(self.train, *self.shapes, images)
        check_same_state(self.shapes[1], statistics)
        return [trained.shape, jax.eval_shape(self.evaluate, *self.shapes, images).shape]

    @partial(jax.jit, static_argnums=0)
    def init(self, keys: jax.Array) -> tuple[Any, Any]:
        """Parameters and statistics for (n,) random keys; every leaf has a leading axis of n."""

        def init_one(key: jax.Array) -> tuple[Any, Any]:
            # Dropout and the like draw from the default stream.
            model = self._make(rngs=nnx.Rngs(jax.random.fold_in(key, 0), params=key))
            return nnx.to_pure_dict(nnx.state(model, nnx.Param)), _statistics(model)

        return jax.vmap(init_one)(keys)

    def counted(self) -> dict[str, Any]:
        """Its parameters, memory and multiply-accumulates for one image, as `ovsw.summary` counts.

        Returns:
          `ovsw.ModelSummary.to_dict`, or {"uncounted": why} where it can't be traced.
        """
        try:
            flags: Mapping[str, Any] = modes(self._model, training=False)
            return ovsw.summary(self._model, (1, *self._image_shape), **flags).to_dict()
        except (TypeError, ValueError) as error:  # a network of one's own may do what can't be seen
            return {"uncounted": str(error)}

    def train(self, params: Any, statistics: Any, images: jax.Array) -> tuple[jax.Array, Any]:
        """Logits in training mode, in float32 at least, and the batch statistics after this batch.

        Raises:
          ValueError: if the call changes of what the network consists, or gives no logits.
        """
        model = self.module(params, statistics)
        model.train()
        before = nnx.graphdef(model)
        logits = as_logits(model(images, **modes(model, training=True)))
        nnx.pop(model, nnx.Intermediate)
        check_same_structure(before, nnx.graphdef(model))
        return logits, _statistics(model)

    def module(self, params: Any, statistics: Any) -> nnx.Module:
        """The NNX module, in evaluation mode, with copies of these arrays."""
        model = nnx.merge(self._graph, params, statistics, copy=True)
        model.eval()
        return model

    @functools.cached_property
    def head(self) -> frozenset[str]:
        """Paths of parameters and statistics whose shapes depend on the number of classes."""
        shapes = [
            traverse_util.flatten_dict({"params": params, "statistics": statistics})
            for params, statistics in (self.shapes, self._shapes_for(self._classes + 1))
        ]
        here, there = shapes
        changed = (p for p in here if p not in there or here[p].shape != there[p].shape)
        return frozenset("/".join(map(str, path)) for path in changed)

    def _shapes_for(self, classes: int) -> tuple[Any, Any]:
        model = abstract(lambda rngs: self._make_for(classes, rngs=rngs))
        return nnx.to_pure_dict(nnx.state(model, nnx.Param)), _statistics(model)

    def evaluate(self, params: Any, statistics: Any, images: jax.Array) -> jax.Array:
        """Logits in evaluation mode, in float32 at least."""
        model = self.module(params, statistics)
        model.eval()
        return as_logits(model(images, **modes(model, training=False)))


def networks_of(
    config: Config, names: Iterable[str], classes: int, image_shape: tuple[int, ...]
) -> dict[str, Network]:
    """Networks by name, each made once, as a config says.

    Raises:
      ValueError: as `Network`.
    """
    return {
        name: Network(
            name,
            classes,
            image_shape,
            binary=config.binary,
            dtype=config.dtype,
            batch_norm_groups=config.batch_norm_groups,
        )
        for name in dict.fromkeys(names)
    }


def _in_groups(make: Callable[..., nnx.Module], groups: int) -> Callable[..., nnx.Module]:
    """Makes a network whose batch norms take the statistics of so many parts of a batch."""

    def made(*, rngs: nnx.Rngs) -> nnx.Module:
        model = make(rngs=rngs)
        norms = [m for _, m in nnx.iter_modules(model) if isinstance(m, nnx.BatchNorm)]
        if not norms or not all(isinstance(m, ovsw.nn.BatchNorm) for m in norms):
            raise ValueError(
                f"batch_norm_groups={groups} needs batch norms that are ovsw.nn.BatchNorm, and "
                f"{'some are not' if norms else 'it has none'}. Use those, or omit it"
            )
        model.set_attributes(ovsw.nn.BatchNorm, batch_groups=groups)
        return model

    return made


def _kernel_axes(model: nnx.Module) -> KernelAxes:
    layers = ovsw.layer_axes(model)
    params = traverse_util.flatten_dict(nnx.to_pure_dict(nnx.state(model, nnx.Param)))
    stacked = [
        "/".join(map(str, path))
        for path, axes in traverse_util.flatten_dict(layers).items()
        if len(axes) < params[path].ndim
    ]
    return KernelAxes(ovsw.filter_axes(model), layers, tuple(stacked))


def _statistics(model: nnx.Module) -> Any:
    """All that is carried from step to step beside the parameters."""
    return nnx.to_pure_dict(nnx.state(model, nnx.Not(nnx.Any(nnx.Param, nnx.Intermediate))))
