"""Compiled programs are kept in the user's cache, and change no number."""

import os
import subprocess
import sys
from pathlib import Path

import matplotlib
import pytest
from run_folders import untimed

ROOT = Path(__file__).parents[1]
CONFIGURED = """
import jax
from experiments.process.compile_cache import keep_compiled_programs

print(keep_compiled_programs())
print(jax.config.jax_compilation_cache_dir)
"""
WITHOUT_FIGURES = """
from experiments import train

train.figures.draw = lambda path: []
train.run_as_program(train.main)
"""
_JAX = ("JAX_COMPILATION_CACHE_DIR", "JAX_ENABLE_COMPILATION_CACHE")


def run(arguments, cache, **environment):
    """A process whose user has his cache in `cache`."""
    env = {k: v for k, v in os.environ.items() if k not in _JAX}
    env |= {"XDG_CACHE_HOME": str(cache), "PYTHONPATH": str(ROOT / "tests"), "JAX_PLATFORMS": "cpu"}
    env |= environment
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=True)


def configured(cache, **environment):
    """What `keep_compiled_programs` says, and the folder that JAX then uses."""
    return run(["-c", CONFIGURED], cache, **environment).stdout.splitlines()


def test_the_folder_lies_in_the_users_cache(tmp_path):
    said, folder = configured(tmp_path)
    assert said == "None"
    assert Path(folder).parent == tmp_path / "ovsw_jax" / "xla"
    assert Path(folder).stat().st_mode & 0o77 == 0  # nobody else's programs are run
    assert not list(Path(folder).iterdir())


@pytest.mark.parametrize(
    ("environment", "folder"),
    [
        ({"JAX_COMPILATION_CACHE_DIR": "elsewhere"}, "elsewhere"),
        ({"JAX_COMPILATION_CACHE_DIR": ""}, ""),
        ({"JAX_ENABLE_COMPILATION_CACHE": "false"}, "None"),
    ],
)
def test_what_the_user_set_stays(environment, folder, tmp_path):
    assert configured(tmp_path, **environment) == ["None", folder]
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_a_line_to_show(tmp_path):
    (tmp_path / "ovsw_jax").write_text("")  # a file; root may write to any folder
    said, folder = configured(tmp_path)
    assert said.startswith("compiled programs are not kept for the next run: [Errno 17]")
    assert folder == "None"


@pytest.mark.skipif(os.name != "posix", reason="asks for rights of POSIX")
@pytest.mark.parametrize("shared", ["ovsw_jax", "ovsw_jax/xla"])
def test_programs_that_others_can_replace_are_not_run(shared, tmp_path):
    (tmp_path / shared).mkdir(parents=True)
    (tmp_path / shared).chmod(0o775)
    said, folder = configured(tmp_path)
    assert f"others may write to {tmp_path / shared}" in said
    assert folder == "None"


def train(cache, out, **environment):
    """Rows of a short training, without times; and what it said."""
    arguments = ["--epochs=1", "--seeds=0", "--optimizers=ovsw", "--train-images=64"]
    arguments.append("--network=tiny_networks:Tiny")
    environment["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
    environment["MPLCONFIGDIR"] = matplotlib.get_configdir()  # its fonts are known there
    done = run(["-c", WITHOUT_FIGURES, *arguments, f"--out={out}"], cache, **environment)
    return untimed(out), done.stderr


@pytest.mark.long
def test_numbers_are_the_same_with_and_without_it(tmp_path):
    """Compiled anew, from the cache, and from a cache that a full disk or a kill has damaged."""
    cache = tmp_path / "cache"
    without, _ = train(cache, tmp_path / "without", JAX_COMPILATION_CACHE_DIR="")
    assert not cache.exists()
    cold, _ = train(cache, tmp_path / "cold")
    kept = {p: p.read_bytes() for p in cache.rglob("*-cache")}
    assert any(p.name.startswith("jit__train_one") for p in kept)
    warm, _ = train(cache, tmp_path / "warm")
    # A program that compiled in just less than the shortest time kept may be there now, too.
    assert {p: p.read_bytes() for p in kept} == kept
    for path, content in kept.items():
        path.write_bytes(content[: len(content) // 2])
    damaged, said = train(cache, tmp_path / "damaged")
    assert "Error reading persistent compilation cache entry" in said
    assert without
    assert without == cold == warm == damaged
