"""Compilers of a TPU and of a GPU say no worse of small programs than they did; nothing runs."""

import accelerator_figures
import accelerator_programs
import public_transforms
import pytest
from accelerator_figures import TARGETS, committed, measured, worse
from flax import nnx

import ovsw_jax as ovsw
from experiments.accelerators import environments
from ovsw_jax.flip_state import KINDS

KNOWN = {"a": {"cycles": 1000, "temporaries": 10_000_000, "moved": 0, "kernels": 40}}


@pytest.mark.long
@pytest.mark.parametrize("platform", TARGETS)
def test_no_program_is_dearer(platform):
    if not environments.python_of(platform).exists():
        pytest.skip("no compiler: benchmarks/accelerators/environments.sh makes it available")
    assert worse(measured(platform), committed()[platform]) == []


def test_the_programs_have_every_rule_and_kind_of_flip_state():
    rules = {name.partition(" ")[0] for name in accelerator_programs.RULES}
    assert rules == public_transforms.TRANSFORMS.keys()
    assert set(accelerator_programs.KINDS) == KINDS.keys()


def test_the_programs_have_every_layer_and_block():
    networks = [
        nnx.eval_shape(lambda make=make: make(dtype=None, rngs=nnx.Rngs(0)))
        for make in (accelerator_programs.Layers, accelerator_programs.Blocks)
    ]
    used = {type(m) for network in networks for _, m in nnx.iter_modules(network)}
    layers = [getattr(ovsw.nn, name) for name in ovsw.nn.__all__]
    blocks = [getattr(ovsw.models, name) for name in ovsw.models.__all__]
    modules = {m for m in (*layers, *blocks) if isinstance(m, type) and issubclass(m, nnx.Module)}
    networks = {m for m in modules if m.__name__.endswith(("18", "20", "34", "ResNet", "Small"))}
    reshapes = {ovsw.nn.BinaryLinearGeneral}  # computes as BinaryDense does
    assert modules - networks - reshapes <= used


@pytest.mark.parametrize(
    ("name", "figure", "says"),
    [
        ("cycles", 1051, "a: cycles 1,051, committed 1,000"),
        ("temporaries", 10_600_000, "a: temporaries 10,600,000, committed 10,000,000"),
        ("kernels", 43, "a: kernels 43, committed 40"),
        ("moved", 100_001, "a: moved 100,001, committed 0"),
    ],
)
def test_more_than_five_percent_above_is_worse(name, figure, says):
    assert worse({"a": KNOWN["a"] | {name: figure}}, KNOWN) == [says]


@pytest.mark.parametrize("figures", [{}, {"cycles": 1050}, {"kernels": 30}, {"moved": 99_999}])
def test_five_percent_above_is_not(figures):
    assert worse({"a": KNOWN["a"] | figures}, KNOWN) == []


def test_a_program_without_figures_is_named():
    (says,) = worse({**KNOWN, "b": KNOWN["a"]}, KNOWN)
    assert says.endswith(f"run {accelerator_figures.WRITE}")
    assert "'b'" in says
