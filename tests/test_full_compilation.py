"""Programs compiled as users compile them give the reference's numbers, too."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent


@pytest.mark.long
@pytest.mark.parametrize("name", ["ags", "alg3", "lars", "layers", "models"])
def test_reference_numbers(name):
    """Elsewhere LLVM's optimisations and XLA's fusion emitters are off: see conftest.py."""
    of_this_run = ("XLA_FLAGS", "JAX_DISABLE_MOST_OPTIMIZATIONS", "PYTEST_")
    env = {k: v for k, v in os.environ.items() if not k.startswith(of_this_run)}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-n", "0", "-q", f"tests/test_golden_{name}.py"],
        cwd=TESTS.parent,
        env={**env, "FULLY_COMPILED": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
