"""Every public function and class says what it takes, gives and comes from, with an example."""

import inspect

import pytest

import ovsw_jax as ovsw

# Made by the transforms, not by the user.
STATES = {name for name in ovsw.__all__ if hasattr(getattr(ovsw, name), "_fields")}
FUNCTIONS = [
    *(getattr(ovsw, name) for name in ovsw.__all__ if name not in STATES),
    *(getattr(ovsw.nn, name) for name in ovsw.nn.__all__),
    *(getattr(ovsw.linen, name) for name in ovsw.linen.__all__),
    *(getattr(ovsw.models, name) for name in ovsw.models.__all__),
    *(getattr(ovsw.deploy, name) for name in ovsw.deploy.__all__),
]


@pytest.mark.parametrize(
    "public", [f for f in FUNCTIONS if not inspect.ismodule(f)], ids=lambda f: f.__name__
)
def test_docstring_is_complete(public):
    doc = inspect.getdoc(public)
    assert ">>> " in doc, "a runnable example"
    if not inspect.isclass(public):
        assert "Args:" in doc
        assert "Returns:" in doc
    if public is not ovsw.nn.sign:
        assert "Source:" in doc


def test_there_are_states():
    assert "FlipState" in STATES


@pytest.mark.parametrize("name", sorted(STATES))
def test_states_describe_every_field(name):
    state = getattr(ovsw, name)
    assert all(f"{field}:" in state.__doc__ for field in state._fields)
