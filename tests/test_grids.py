"""Grids: the members of a sweep, the programs they share, and grids that can't be."""

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.config import Config
from experiments.recipes import RECIPES
from experiments.sweep.members import chunks, programs


def members(*grids, **fields):
    return [m for p in programs(Config(grids=grids, **fields)) for m in p.members]


def test_no_grid_is_the_optimizers_and_seeds():
    found = programs(Config(optimizers=("sgd", "ovsw"), seeds=(4, 5)))
    assert [(p.optimizer, p.varying) for p in found] == [("sgd", ()), ("ovsw", ())]
    assert [(m.point, m.seed) for m in found[0].members] == [({}, 4), ({}, 5)]


def test_a_grid_is_a_product_and_several_are_their_union():
    found = members(
        "optimizer=ovsw lam=0.01,0.04 tau=1e-4,9e-4,1e-2", "optimizer=sgd", seeds=(0, 1)
    )
    expected = {
        *(
            ("ovsw", lam, tau, s)
            for lam in (0.01, 0.04)
            for tau in (1e-4, 9e-4, 1e-2)
            for s in (0, 1)
        ),
        *(("sgd", None, None, s) for s in (0, 1)),
    }
    seen = [(m.optimizer, m.point.get("lam"), m.point.get("tau"), m.seed) for m in found]
    assert len(seen) == len(expected)
    assert set(seen) == expected


def test_words_make_programs_and_numbers_do_not():
    found = programs(Config(grids=("optimizer=sgd init=normal,uniform init_scale=0.1,1,10",)))
    assert [(p.config.init, p.varying, len(p.members)) for p in found] == [
        ("normal", ("init_scale",), 9),
        ("uniform", ("init_scale",), 9),
    ]


@given(st.integers(1, 7), st.integers(1, 5), st.integers(1, 9))
def test_chunks_hold_every_member_once(points, seeds, size):
    grid = f"optimizer=sgd,ovsw momentum={','.join(f'0.{i + 1}' for i in range(points))}"
    planned = programs(Config(grids=(grid,), seeds=tuple(range(seeds))))
    cut = list(chunks(planned, size))
    assert all(0 < len(together) <= size for _, together in cut)
    assert all({m.key for m in together} <= {m.key for m in p.members} for p, together in cut)
    keys = [m.key for _, together in cut for m in together]
    assert sorted(keys) == sorted(m.key for p in planned for m in p.members)
    # Of two chunks in a row, the optimizer changes: a run that is stopped compares them.
    assert all(a[0] is not b[0] for a, b in itertools.pairwise(cut))


BAD_GRIDS = {
    r"field of a grid 'lamm' is unknown. Did you mean 'lam'": "lamm=1",
    r"grid 'lam=' can't be read at 'lam='": "lam=",
    r"grid 'lam=1 lam=2' can't be read at 'lam=2': it must be NAME=VALUE": "lam=1 lam=2",
    r"lam=high in a grid is no number: write it as 0.04": "lam=high",
    r"learning_rate=-1.0 is out of range: it must be finite and > 0": "learning_rate=-1",
    r"init=normel is out of range: it must be normal or uniform": "init=normel",
    r"hold ags \{'lam': 0.01\} twice": "optimizer=ags lam=0.01,1e-2",
    r"grid 'optimizer=sgd lam=0.1' varies lam, which sgd does not have.*ags and ovsw a grid of": (
        "optimizer=sgd lam=0.1"
    ),
    r"grids=\('  ',\) hold an empty grid": "  ",
    r"field of a grid 'epochs' is unknown": "epochs=1,2",
    r"field of a grid 'checkpoint_seconds' is unknown": "checkpoint_seconds=1,2",
}


@pytest.mark.parametrize("message", BAD_GRIDS)
def test_grids_that_cannot_be(message):
    with pytest.raises(ValueError, match=message):
        members(BAD_GRIDS[message], optimizers=("ovsw",))


def test_every_optimizer_is_tuned_as_much_as_the_others():
    tuning = RECIPES["tuning"]
    assert {p.optimizer: len(p.members) for p in programs(tuning)} == dict.fromkeys(
        ("sgd", "adam", "lars", "bop", "ags", "sad", "ovsw"), 6
    )
    assert tuning.held_out > 0
    assert not set(tuning.seeds) & {s for r in RECIPES.values() if r is not tuning for s in r.seeds}


def test_a_point_is_only_what_the_grid_names():
    assert re.fullmatch(r"\{'eta': 0.1\}", str(dict(members("optimizer=lars eta=0.1")[0].point)))
