"""Which cases of a test are longer checks."""

import pytest


def long_but(cases, *quick):
    """The cases as parameters, of which all but the quick ones are for `pytest -m long`."""
    return [case if case in quick else pytest.param(case, marks=pytest.mark.long) for case in cases]
