"""The benchmark's steps on slices: how they are divided, and the tables of what chips send."""

import jax
import pytest
from longer import long_but

from benchmarks.accelerators import cells, pod_tables, pods, tables
from benchmarks.accelerators.pods import WAYS, PodProgram
from benchmarks.accelerators.sent import Sent, sent
from experiments.accelerators import Target
from experiments.training import sharding

CHIPS = 8
PROGRAM = """HloModule step

%sum (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %both = f32[] add(%a, %b)
}

ENTRY %main (k: bf16[3,3,64,8], x: f32[64]) -> f32[64] {
  %k = bf16[3,3,64,8]{3,2,1,0} parameter(0)
  %x = f32[64]{0} parameter(1)
  %start = (bf16[3,3,64,8]{3,2,1,0:T(8,128)}, bf16[3,3,64,64]{3,2,1,0}) all-gather-start(%k)
  %whole = bf16[3,3,64,64]{3,2,1,0} all-gather-done(%start)
  %sums = (f32[64]{0:T(128)}, f32[64]{0}) all-reduce(%x, %x), to_apply=%sum
  ROOT %first = f32[64]{0} get-tuple-element(%sums), index=0
}
"""


def test_what_is_sent():
    assert sent(PROGRAM) == (
        Sent("all-gather", "bf16[3,3,64,64]", 1, 2 * 9 * 64 * 64),
        Sent("all-reduce", "f32[64]", 2, 2 * 4 * 64),
    )


def record(way, rows, collectives):
    reading = {
        "arguments": 200e6,
        "temporaries": 1400e6,
        "output": 100e6,
        "alias": 100e6,
        "cycles": 45e6,
        "collectives": collectives,
        "where": [],
    }
    return {
        "target": "v5e:16x16",
        "devices": 256,
        "program": {"network": "ResNet18", "way": way, "code": "pods"},
        "reading": reading,
        "sent": rows,
        "versions": {"jax": "0.10.2"},
        "date": "2030-01-02",
    }


def test_tables(tmp_path):
    kernel = {"kind": "all-gather", "shape": "f32[9,512,512]", "arrays": 3, "bytes": 28e6}
    images = {"kind": "all-gather", "shape": "bf16[64,56,56,64]", "arrays": 2, "bytes": 51e6}
    part = {"kind": "reduce-scatter", "shape": "f32[3,3,512,2]", "arrays": 1, "bytes": 36864}
    sums = {"kind": "all-reduce", "shape": "f32[64]", "arrays": 40, "bytes": 10240}
    counts = {
        "all-reduce": {"count": 55, "bytes": 1},
        "all-gather": {"count": 5, "bytes": 1},
        "all-to-all": {"count": 2, "bytes": 1},
    }
    records = [record("fsdp", [kernel, images, part, sums], counts), record("data", [sums], {})]
    tables.write(records, tmp_path)
    text = (tmp_path / "tables.md").read_text()
    data = "| v5e:16x16 | ResNet18 | data | 200.0 | 1400 | 10.0 | 45.00 | 0 | 0 | 0 | none | 0 |"
    fsdp = "| v5e:16x16 | ResNet18 | fsdp | 200.0 | 1400 | 10.0 | 45.00 | 55 | 5 | 0 "
    assert data + "\n" + fsdp + "| 2 all-to-all | 2 |" in text
    assert "| fsdp | all-gather | kernels | 3 | 28.00 |" in text
    assert "| fsdp | all-gather | activations | 2 | 51.00 |" in text
    assert "| fsdp | reduce-scatter | kernels | 1 | 0.04 |" in text
    assert "| fsdp | all-reduce | sums | 40 | 0.01 |" in text
    assert pod_tables.section([]) == []


def test_programs():
    pod, small = (list(cells.pod_programs_of(t)) for t in (cells.PODS[0], cells.SLICE))
    assert {p.network for p in pod} == {"ResNet18"}
    assert {p.way for p in (*pod, *small)} == set(WAYS)
    assert {p.network for p in small} == {"small"}
    assert list(cells.pod_programs_of("v6e:2x2")) == []


@pytest.fixture
def traced(monkeypatch):
    """Makes a program as for a slice of so many chips, up to its trace."""
    monkeypatch.setattr(pods, "lower_for", lambda target, step, *shapes: step.trace(*shapes))
    monkeypatch.setattr(sharding, "LARGE", 2**12)
    target = Target("here", "tpu", tuple(jax.devices()[:CHIPS]), memory=0, clock=None)
    return lambda way: pods.lower_pod(PodProgram("small", way), target)


@pytest.mark.parametrize("way", long_but([w for w in WAYS if w != "pmap"], "fsdp", "shard_map"))
def test_ways_take_and_give_the_same(traced, way):
    program = traced(way)
    params, state, statistics, images, labels = jax.tree.map(
        lambda x: (x.shape, x.dtype), program.args_info[0]
    )
    given = jax.tree.map(lambda x: (x.shape, x.dtype), program.out_info)
    assert given == (params, state, statistics)
    several = (pods.STEPS,) if way == "scan" else ()
    assert images[0] == (*several, CHIPS * 16, 32, 32, 3)
    assert labels[0] == (*several, CHIPS * 16)
