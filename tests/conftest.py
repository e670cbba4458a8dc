"""What tests share: eight virtual CPU devices, strict promotion of dtypes, seeded examples."""

import importlib.metadata
import os
from pathlib import Path

# Compiling is nearly all of the suite's time, and most programs run once or twice: without LLVM's
# optimisations and XLA's fusion emitters it takes a third. FULLY_COMPILED=1 compiles as users do.
os.environ.setdefault(
    "JAX_DISABLE_MOST_OPTIMIZATIONS", "0" if os.environ.get("FULLY_COMPILED") else "1"
)
# All of these must be set before JAX first starts a backend.
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "")
    + " --xla_force_host_platform_device_count=8"
    # On a busy machine the eight may wait long for each other; XLA ends the process after 40 s.
    + " --xla_cpu_collective_call_terminate_timeout_seconds=600"
    # As `experiments.process.distributed.in_one_order`.
    + " --xla_cpu_enable_concurrency_optimized_scheduler=false"
    # Known up to jaxlib 0.11.0; XLA ends a process that has an unknown flag.
    + (
        ""
        if os.environ.get("FULLY_COMPILED") or importlib.metadata.version("jaxlib") > "0.11.0"
        else " --xla_cpu_use_fusion_emitters=false"
    )
).strip()
os.environ.setdefault("MPLBACKEND", "Agg")
# Each test makes its own functions, and JAX would compile them again: programs that took long are
# kept for all workers, for the processes they start, and for the next run. JAX locks the folder
# only where its size is bounded.
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(Path(__file__).parents[1] / ".jax_cache")
os.environ["JAX_COMPILATION_CACHE_MAX_SIZE"] = str(4 * 2**30)
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"

import hypothesis
import jax
import pytest

hypothesis.settings.register_profile(
    "suite", max_examples=25, derandomize=True, deadline=None, database=None
)
# Another search at every run: HYPOTHESIS_PROFILE=search pytest tests
hypothesis.settings.register_profile("search", max_examples=1000, deadline=None, database=None)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "suite"))


@pytest.fixture(scope="module", autouse=True)
def programs_of_a_file():
    """Frees their memory, which otherwise grows to 7 GB per worker."""
    yield
    jax.clear_caches()


@pytest.fixture
def strict_promotion():
    """Raises where two dtypes would be mixed silently; the transforms must not rely on that."""
    with jax.numpy_dtype_promotion("strict"):
        yield


@pytest.fixture
def float64():
    """Runs the test with 64-bit types switched on."""
    with jax.enable_x64(True):
        yield
