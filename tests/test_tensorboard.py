"""What TensorBoard's own backend finds in the files of a run."""

import numpy as np
import pytest

from experiments.config import Config
from experiments.run.folder import RunFolder
from experiments.run.histograms import BINS
from experiments.sweep.members import Member

tensorboard = pytest.importorskip("tensorboard", reason="the viewer is not installed")

GRIDS = ("optimizer=ovsw lam=0.01,0.04", "optimizer=sgd learning_rate=0.2")
POINTS = [("ovsw", {"lam": 0.01}), ("ovsw", {"lam": 0.04}), ("sgd", {"learning_rate": 0.2})]
NAMES = ["ovsw-lam=0.01-seed5", "ovsw-lam=0.04-seed5", "sgd-learning_rate=0.2-seed5"]


def row(optimizer, point, top1):
    measured = {"loss": 1.0, "silent_ratio": 0.25, "test_top1": top1}
    layers = {"conv": {"silent_ratio": 0.5}}
    member = {"optimizer": optimizer, "seed": 5, "point": point, "epoch": 1, "step": 7}
    return member | measured | {"layers": layers}


@pytest.fixture(scope="module")
def counts():
    return np.random.default_rng(0).integers(0, 100, (3, BINS))


@pytest.fixture(scope="module")
def shown(tmp_path_factory, counts):
    """TensorBoard's view of a sweep of three points."""
    from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer

    folder = tmp_path_factory.mktemp("sweep") / "run"
    with RunFolder(Config(out=folder, grids=GRIDS, seeds=(5,))) as run:
        for i, point in enumerate(POINTS):
            run.write_metrics([row(*point, (2 + i) / 8)])
        found = {"conv": {"limit": np.float32(0.5), "counts": counts}}
        run.write_histograms(Member(*POINTS[0], 5), 1, 7, found)
        run.finish_events()
    shown = EventMultiplexer()
    shown.AddRunsFromDirectory(str(folder / "tensorboard"))
    return shown.Reload()


def test_trainings_can_be_compared_by_their_hyperparameters(shown):
    from tensorboard import context
    from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
    from tensorboard.plugins import base_plugin
    from tensorboard.plugins.hparams import api_pb2, backend_context, list_session_groups

    assert sorted(shown.Runs()) == NAMES
    provider = base_plugin.TBContext(data_provider=MultiplexerDataProvider(shown, ""), logdir="")
    request = api_pb2.ListSessionGroupsRequest(
        slice_size=9, allowed_statuses=[api_pb2.Status.STATUS_SUCCESS]
    )
    asked = context.RequestContext(), backend_context.Context(provider), "", request
    groups = {
        group.name: group for group in list_session_groups.Handler(*asked).run().session_groups
    }
    assert sorted(groups) == NAMES
    for i, (name, (optimizer, point)) in enumerate(zip(NAMES, POINTS, strict=True)):
        columns = {key: v.number_value or v.string_value for key, v in groups[name].hparams.items()}
        measured = {value.name.tag: value.value for value in groups[name].metric_values}
        assert columns.items() >= {"optimizer": optimizer, "seed": 5, "data": "digits"}.items()
        assert columns.items() >= point.items()
        assert ("lam" in columns) == (optimizer == "ovsw")  # SGD uses none
        assert measured == {"loss": 1.0, "silent_ratio": 0.25, "test_top1": (2 + i) / 8}


def test_latent_weights_are_histograms(shown, counts):
    from tensorboard.util import tensor_util

    edges = np.linspace(-0.5, 0.5, BINS + 1)
    # Kinds are flipping, silent and never flipped.
    for tag, expected in [("latent_weights", counts.sum(0)), ("silent_weights", counts[1:].sum(0))]:
        (event,) = shown.Tensors(NAMES[0], f"{tag}/conv")
        left, right, count = tensor_util.make_ndarray(event.tensor_proto).T
        assert event.step == 7
        np.testing.assert_allclose(left, edges[:-1], atol=1e-6)
        np.testing.assert_allclose(right, edges[1:], atol=1e-6)
        np.testing.assert_array_equal(count, expected)
