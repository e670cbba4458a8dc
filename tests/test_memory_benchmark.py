"""The memory benchmark against numbers counted by hand."""

import json
import math

import jax
import pytest
from flax import nnx

import ovsw_jax as ovsw
from benchmarks import memory

# SmallResNet(10) on RGB: stem, four binary kernels, five batch norms and one in front of the head.
LATENT = 9 * (16 * 16 + 16 * 16 + 16 * 32 + 32 * 32)
REAL = 9 * 3 * 16 + 2 * (16 * 3 + 32 * 3) + 32 * 10 + 10
STATISTICS = 2 * (16 * 3 + 32 * 3)
SCALARS = 4 * (1 + 3 * 4) + 4 * (1 + 4 + 1 + 1)  # of AgsState and FlipState: 4 latent kernels
COUNT = 4
WRITTEN_ONLY = 4 * (3 * 4 + 4 + 1)  # of them what a step writes without reading it: no argument

STATE = {
    "SGD": 4 * (REAL + LATENT),
    "Adam": 8 * (REAL + LATENT) + COUNT,
    "LARS": 4 * (REAL + LATENT) + COUNT + 4 * 4,  # a local rate for each latent kernel
    "Bop": (4 * LATENT + COUNT) + (8 * REAL + COUNT),
    "OvSW, packed": 4 * (REAL + LATENT) + 2 * LATENT + SCALARS,
    "OvSW, EMA": 4 * (REAL + LATENT) + 4 * LATENT + SCALARS,
}


@pytest.fixture(scope="module")
def model():
    return nnx.eval_shape(lambda: ovsw.models.SmallResNet(10, rngs=nnx.Rngs(0)))


def test_parameters(model):
    assert memory.count_parameters(model) == (REAL + LATENT, LATENT)


@pytest.mark.parametrize("name", memory.OPTIMIZERS)
def test_state(model, name):
    tx = memory.OPTIMIZERS[name]()
    assert memory.state_bytes(tx, model) == STATE[name]
    # The abstract state is the one that training makes.
    params = nnx.to_pure_dict(nnx.state(ovsw.models.SmallResNet(rngs=nnx.Rngs(0)), nnx.Param))
    assert sum(x.nbytes for x in jax.tree.leaves(tx.init(params))) == STATE[name]


def test_a_compiled_step_holds_its_state_once(model):
    name = "OvSW, packed"
    step = memory.compile_step(model, memory.OPTIMIZERS[name](), "mixed", (2, 8, 8, 3))
    held = 4 * (REAL + LATENT + STATISTICS) + STATE[name] - WRITTEN_ONLY
    batch = 4 * math.prod((2, 8, 8, 3)) + 4 * 2
    assert step.held == held
    assert held + batch <= step.arguments <= held + batch + 1024  # XLA aligns
    assert step.temporary > 0
    assert step.peak == step.arguments + step.outputs - step.held + step.temporary


def test_table(monkeypatch, capsys, tmp_path):
    def compiled(model, tx, precision, images):
        assert images == (3, 32, 32, 3)
        size = memory.state_bytes(tx, model)
        return memory.Step(held=size, arguments=size, outputs=size, temporary=2 * size)

    monkeypatch.setattr(memory, "compile_step", compiled)
    monkeypatch.setitem(memory.NETWORKS, "resnet20", ovsw.models.SmallResNet)
    file = tmp_path / "memory.json"
    memory.main("resnet20", batch_size=3, json_file=file)
    table = [row for row in capsys.readouterr().out.splitlines() if row.startswith("|")]
    assert len({row.count("|") for row in table}) == 1
    assert [row.split(" | ")[0] for row in table[2:]] == [f"| {name}" for name in STATE]
    n = REAL + LATENT
    state, extra = STATE["OvSW, packed"] / n, 2 * (STATE["OvSW, packed"] - STATE["SGD"]) / n
    assert table[6] == (
        f"| OvSW, packed | {state:.2f} | {8 + state:.2f} | 14 | {state:.2f} | {state:.2f} "
        f"| {extra:+.2f} | {extra:+.2f} |"
    )
    written = json.loads(file.read_text())
    assert written["parameters"] == n
    assert written["optimizers"]["Adam"]["state_bytes"] == STATE["Adam"]
    assert written["optimizers"]["Adam"]["steps"]["mixed"]["peak"] == 3 * STATE["Adam"]
