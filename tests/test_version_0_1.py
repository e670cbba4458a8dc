"""What version 0.1 documented still works: names, states, commands, recipes and run folders.

`version_0_1/public.json` lists it, and the two run folders beside it were written by version 0.1:
one of a run that was stopped in its last epoch, one of the same run to its end.
"""

import dataclasses
import importlib.util
import inspect
import json
import re
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import ovsw_jax as ovsw
from experiments import train
from experiments.config import Config
from experiments.recipes import RECIPES
from experiments.run.reader import read_run
from experiments.trained import load_trained

FOLDER = Path(__file__).parent / "version_0_1"
THEN = json.loads((FOLDER / "public.json").read_text())
COMMAND = "digits --network tiny_networks:Tiny --train-images 100 --batch-size 50 --epochs 2"
COMMAND += " --seeds 0 --members-at-once 1 --out"


def found(name):
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute)


def default_of(parameter):
    value = parameter.default
    if value is inspect.Parameter.empty:
        return None
    text = getattr(value, "__name__", repr(value)) if callable(value) else repr(value)
    return re.sub(r" at 0x[0-9a-f]+", "", text)


@pytest.mark.parametrize("name", THEN["signatures"])
def test_a_call_of_version_0_1_means_the_same(name):
    """Old parameters keep their names, order and defaults; new ones can be left out."""
    function = found(name)
    if inspect.isclass(function) and not hasattr(function, "_fields"):
        function = function.__init__
    signature = inspect.signature(function)
    now = signature.parameters
    then = {n: (kind, default) for n, kind, default in THEN["signatures"][name]}
    defaults = {n: default for n, (_, default) in then.items() if n in now}
    assert {n: default_of(now[n]) for n in defaults} == defaults
    named = [n for n, (kind, _) in then.items() if not kind.startswith("VAR_")]
    first = [n for n in named if then[n][0] == "POSITIONAL_OR_KEYWORD"]
    signature.bind(**dict.fromkeys(named))
    by_place = signature.bind(*first, **{n: n for n in named if n not in first})
    by_place.apply_defaults()
    places = [n for n, p in now.items() if p.kind.name == "POSITIONAL_OR_KEYWORD"]
    assert [n for n in places if n in then] == first[: len([n for n in places if n in then])]


PARAMS = {
    "conv": {"latent_kernel": jnp.ones((3, 3, 2, 4)), "bias": jnp.zeros(4)},
    "head": {"kernel": jnp.ones((4, 2))},
}
TRANSFORMS = {
    "ags": ovsw.ags,
    "sad": ovsw.sad,
    "sad packed8": lambda: ovsw.sad(state="packed8"),
    "sad ema": lambda: ovsw.sad(state="ema"),
    "track_flip_state": ovsw.track_flip_state,
    "bop": lambda: ovsw.bop(1e-6, mask=lambda p: jax.tree.map(lambda x: x.ndim == 4, p)),
    "lars_sgd": lambda: ovsw.lars_sgd(0.1),
    "lars_sgd momentum": lambda: ovsw.lars_sgd(0.1, momentum=0.9),
    "ovsw_sgd": lambda: ovsw.ovsw_sgd(0.1),
}


@pytest.mark.parametrize("name", THEN["states"])
def test_an_optimizer_state_has_the_structure_of_version_0_1(name):
    state = jax.eval_shape(TRANSFORMS[name]().init, PARAMS)
    leaves = jax.tree_util.tree_leaves_with_path(state)
    now = [[jax.tree_util.keystr(path), list(x.shape), str(x.dtype)] for path, x in leaves]
    assert now == THEN["states"][name]


@pytest.mark.parametrize("name", THEN["parameters"])
def test_a_network_has_the_parameters_of_version_0_1(name):
    model = nnx.eval_shape(lambda: getattr(ovsw.models, name)(10, rngs=nnx.Rngs(0)))
    flat = nnx.to_flat_state(nnx.state(model, nnx.Any(nnx.Param, nnx.BatchStat)))
    now = [["/".join(map(str, path)), list(v.shape), str(v.dtype)] for path, v in flat]
    assert now == THEN["parameters"][name]


def plain(value):
    return json.loads(json.dumps(value, default=str))


def test_a_config_means_the_same():
    now = plain(dataclasses.asdict(Config()))
    assert {name: now[name] for name in THEN["config"]} == THEN["config"]


@pytest.mark.parametrize("name", THEN["recipes"])
def test_a_recipe_is_the_same(name):
    now = plain(dataclasses.asdict(RECIPES[name]))
    assert now == {**plain(dataclasses.asdict(Config())), **THEN["recipes"][name]}


@pytest.mark.parametrize("name", THEN["commands"])
def test_a_command_is_still_there(name):
    package = importlib.util.find_spec(name).submodule_search_locations is not None
    source = Path(importlib.util.find_spec(f"{name}.__main__" if package else name).origin)
    assert '__name__ == "__main__"' in source.read_text()


def test_a_run_folder_is_read():
    run = read_run(FOLDER / "finished")
    assert run.arms == ["sgd", "ovsw"]
    assert all(run.finished(arm) for arm in run.arms)
    images = np.zeros((2, 8, 8, 1), np.uint8)
    logits = load_trained(FOLDER / "finished", own=["tiny_networks:Tiny"]).logits(images)
    assert logits.shape == (2, 10)


def test_a_stopped_run_resumes_to_the_same_end(tmp_path):
    """To rounding: another processor, or another version of JAX, adds in another order."""
    folder = tmp_path / "stopped"
    shutil.copytree(FOLDER / "stopped", folder)
    assert train.main([*COMMAND.split(), str(folder)]) == 0
    now, then = read_run(folder), read_run(FOLDER / "finished")
    for arm in then.arms:
        np.testing.assert_allclose(now.final(arm, "loss"), then.final(arm, "loss"), rtol=1e-3)
        with (
            np.load(folder / "weights" / f"{arm}-seed0.npz") as here,
            np.load(FOLDER / "finished" / "weights" / f"{arm}-seed0.npz") as there,
        ):
            assert here.keys() == there.keys()
            for name in there:
                if there[name].dtype.kind == "f":
                    np.testing.assert_allclose(here[name], there[name], atol=1e-3)
