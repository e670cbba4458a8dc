"""Runs the tests on the oldest and the newest versions that pyproject.toml allows.

`nox` runs all of them, `nox -s 'tests-3.12(oldest)' -- tests/test_layers.py` some.
"""

import nox

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "uv"
nox.options.download_python = "never"
nox.options.error_on_missing_interpreters = False  # in CI, too


@nox.session(python=["3.11", "3.12", "3.13"])
@nox.parametrize(
    "resolution",
    [
        # Of what pyproject.toml names; what those packages need themselves is as new as they allow.
        nox.param("lowest-direct", id="oldest"),
        nox.param("highest", id="newest"),
    ],
)
def tests(session: nox.Session, resolution: str) -> None:
    """The whole suite, or what is named behind `--`."""
    session.install("--resolution", resolution, "-e", ".[experiments,test]")
    session.run("uv", "pip", "list")  # the versions that a failure belongs to
    session.run("python", "-m", "pytest", "-m", "", *session.posargs)  # the longer checks, too
