"""Every transform of the library, found by what it returns, so that a new one is tested at once."""

import functools
import inspect

import optax

import ovsw_jax as ovsw

REQUIRED = {"learning_rate": 0.1}


def is_transform(public):
    """Whether it is a function that makes a gradient transformation."""
    if not inspect.isfunction(public):
        return False
    return inspect.signature(public).return_annotation is optax.GradientTransformationExtraArgs


def _with_defaults(make):
    parameters = inspect.signature(make).parameters
    given = [value for name, value in REQUIRED.items() if name in parameters]
    return functools.partial(make, *given) if given else make


NAMES = [name for name in ovsw.__all__ if is_transform(getattr(ovsw, name))]  # short ones too
# By name, a function that needs no argument.
TRANSFORMS = {f.__name__: _with_defaults(f) for f in (getattr(ovsw, name) for name in NAMES)}
assert {"scale_by_ags", "silence_aware_decay", "ovsw_sgd", "clip_latent"} < TRANSFORMS.keys()
