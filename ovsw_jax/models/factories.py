"""What can be said of a callable that makes layers or blocks, before it is called."""

import functools
from collections.abc import Callable, Mapping
from inspect import Parameter, signature
from typing import Any


def takes(make: Callable[..., Any], name: str) -> bool:
    """Whether it has a keyword of this name; a class, a function, or a `partial` of one."""
    made = _made_by(make)
    is_class = isinstance(made, type)
    # Of an NNX class itself the signature is that of its metaclass, which takes anything.
    parameters = signature(made.__init__ if is_class else made).parameters
    return name in parameters or any(p.kind is Parameter.VAR_KEYWORD for p in parameters.values())


def settings(make: Callable[..., Any]) -> Mapping[str, Any]:
    """The keywords that a caller has fixed with a `partial`."""
    return make.keywords if isinstance(make, functools.partial) else {}


def name_of(make: Callable[..., Any]) -> str:
    """Its name, for an error."""
    made = _made_by(make)
    return getattr(made, "__name__", repr(made))


def _made_by(make: Callable[..., Any]) -> Any:
    return make.func if isinstance(make, functools.partial) else make
