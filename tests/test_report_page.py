"""RUN/report.html: its data against another reading of the folder, strange names, old folders."""

import base64
import json
import math
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from report_records import write_records
from sklearn.metrics import confusion_matrix
from synthetic_run import DIGITS_LAYERS, RESNET20_LAYERS, read_rows, write_rows, write_run
from synthetic_sweep import LARS_AGS, write_sweep

from experiments.report import __main__ as command
from experiments.report.html import content, write_report
from experiments.report.html.document import SCRIPTS, document, unpacked
from experiments.run import examples
from experiments.run.predictions import Predictions
from experiments.run.predictions import save as save_predictions
from experiments.run.reader import read_run

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\u2028&\"'"
VERSION_0_1 = Path(__file__).parent / "version_0_1"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "digits"
    return write_records(write_run(path, epochs=6, seeds=(3, 5)))


@pytest.fixture(scope="module")
def data(folder):
    """The data of the page, as a browser reads them."""
    return unpacked(write_report(folder).read_text(encoding="utf-8"))


def chart(data, title):
    return next(x for x in data["curves"] if x["title"] == title)


@pytest.mark.parametrize(
    ("title", "metric", "factor"),
    [
        ("Test top-1", "test_top1", 100),
        ("Training loss", "loss", 1),
        ("Weights that never flipped", "never_flipped_ratio", 100),
        ("Signs that changed since the epoch before", "epoch_flip_ratio", 100),
    ],
)
def test_curves_are_means_and_deviations_of_the_rows(folder, data, title, metric, factor):
    for line, optimizer in zip(chart(data, title)["lines"], ("sgd", "ovsw"), strict=True):
        assert data["arms"][line["arm"]]["key"] == optimizer
        rows = [row for row in read_rows(folder) if row["optimizer"] == optimizer]
        assert line["epochs"] == [1, 2, 3, 4, 5, 6]
        for epoch, mean, std in zip(line["epochs"], line["mean"], line["std"], strict=True):
            values = [factor * row[metric] for row in rows if row["epoch"] == epoch]
            assert mean == pytest.approx(np.mean(values), rel=1e-3, abs=0.006)
            assert std == pytest.approx(np.std(values, ddof=1), rel=1e-3, abs=0.006)


def test_heat_maps_are_means_over_the_seeds(folder, data):
    found = data["layers"]
    assert found["layers"] == list(DIGITS_LAYERS)
    rows = read_rows(folder)
    for one, optimizer in zip(found["maps"], ("sgd", "ovsw"), strict=True):
        for kind in ("never_flipped_ratio", "silent_ratio", "epoch_flip_ratio"):
            wanted = [
                [
                    100
                    * np.mean(
                        [
                            row["layers"][layer][kind]
                            for row in rows
                            if (row["optimizer"], row["epoch"]) == (optimizer, epoch)
                        ]
                    )
                    for epoch in one["epochs"]
                ]
                for layer in DIGITS_LAYERS
            ]
            np.testing.assert_allclose(one["values"][kind], wanted, atol=0.006)


def test_histograms_are_those_of_the_first_seed(folder, data):
    found = data["latent"]
    for panel, optimizer in zip(found["panels"], ("sgd", "ovsw"), strict=True):
        file = folder / "histograms" / f"{optimizer}-seed3.jsonl"
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        assert (panel["seed"], panel["epochs"], panel["of"]) == (3, list(range(7)), 7)
        for row, layer in enumerate(found["layers"]):
            for column, line in enumerate(lines):
                there = line["layers"][layer]
                wanted = there["flipping"] + there["silent"] + there["never_flipped"]
                assert panel["counts"][row][column] == wanted
                assert panel["limits"][row][column] == there["limit"]


def test_confusion_is_summed_over_the_seeds(folder, data):
    assert data["classes"][7] == "class 7"
    for found, optimizer in zip(data["answers"], ("sgd", "ovsw"), strict=True):
        arrays = [np.load(folder / "predictions" / f"{optimizer}-seed{s}.npz") for s in (3, 5)]
        label = np.concatenate([x["label"] for x in arrays])
        predicted = np.concatenate([x["predicted"] for x in arrays])
        assert found["matrix"] == confusion_matrix(label, predicted).tolist()
        assert (found["images"], found["right"]) == (720, (label == predicted).sum())
        first = found["confused"][0]
        wrong = confusion_matrix(label, predicted) * (1 - np.eye(10, dtype=int))
        assert first[2] == wrong.max() == wrong[first[0], first[1]]


def test_example_images_are_shown_pixel_by_pixel(folder, data):
    with np.load(folder / "examples" / "ovsw-seed3.npz") as kept:
        index, images = kept["places"], kept["images"]
    with np.load(folder / "predictions" / "ovsw-seed3.npz") as answers:
        label, predicted = answers["label"][index], answers["predicted"][index]
    shown = data["examples"][1]["images"]
    assert [x["place"] for x in shown] == index.tolist()
    assert [x["label"] for x in shown] == label.tolist()
    assert [x["predicted"] for x in shown] == predicted.tolist()
    for x, image in zip(shown, images, strict=True):
        decoded = np.asarray(Image.open(BytesIO(base64.b64decode(x["png"]))))
        assert np.array_equal(decoded, image[..., 0])


def test_network_config_and_command(data):
    (network,) = data["networks"]
    assert network["total"]["binary_params"] == 2304 * len(DIGITS_LAYERS)
    assert [row["name"] for row in network["layers"]] == list(DIGITS_LAYERS)
    config = {item["field"]: item for item in data["config"]}
    assert config["seeds"] == {"field": "seeds", "value": "3, 5", "default": False}
    assert config["learning_rate"]["default"]
    assert data["command"] == "python -m experiments.train"
    assert data["missing"] == []


def test_the_verdict_compares_the_best_with_sgd(folder, data):
    rows = [row for row in read_rows(folder) if row["epoch"] == 6]
    of = {key: [r["test_top1"] for r in rows if r["optimizer"] == key] for key in ("sgd", "ovsw")}
    points = 100 * (np.mean(of["ovsw"]) - np.mean(of["sgd"]))
    error = 100 * math.sqrt(sum(np.var(v, ddof=1) / 2 for v in of.values()))
    assert data["verdict"].startswith(
        f"OvSW reaches {100 * np.mean(of['ovsw']):.1f} % test top-1, {points:.1f} points more than "
        f"SGD ({points / error:.1f} standard errors of the difference, 2 seeds); "
    )
    never = {
        key: np.mean([r["never_flipped_ratio"] for r in rows if r["optimizer"] == key])
        for key in of
    }
    assert data["verdict"].endswith(
        f"{100 * never['ovsw']:.1f} % of its binary weights never flipped, of SGD's "
        f"{100 * never['sgd']:.1f} %."
    )


def verdict_of(folder):
    return content(read_run(folder))["verdict"]


def test_verdicts_of_other_runs(tmp_path):
    one = write_run(tmp_path / "one", optimizers=("ovsw",), seeds=(0,), epochs=2)
    assert re.fullmatch(
        r"OvSW reaches [\d.]+ % test top-1; [\d.]+ % of its binary weights never flipped\.",
        verdict_of(one),
    )
    seeds = write_run(tmp_path / "seeds", seeds=(0,), epochs=3, held_out=90)
    assert "(one seed each, so chance is not excluded)" in verdict_of(seeds)
    assert "held-out top-1" in verdict_of(seeds)
    rows = [row for row in read_rows(one) if row["epoch"] == 1]
    write_rows(one, rows)
    assert verdict_of(one).startswith("Unfinished; so far: OvSW reaches")
    for row in rows:
        del row["test_top1"]
    write_rows(one, rows)
    assert verdict_of(one) == "No top-1 was evaluated yet."
    sweep = write_sweep(tmp_path / "sweep", LARS_AGS, epochs=2)
    assert verdict_of(sweep).startswith("Best of 13 settings: ")
    same = write_run(tmp_path / "same", epochs=1, seeds=(0, 1))
    write_rows(same, [{**row, "test_top1": 0.5} for row in read_rows(same)])
    assert "as much as" in verdict_of(same)
    assert "standard errors" not in verdict_of(same)  # of a difference of nothing


class Elements(HTMLParser):
    """Start tags and their attributes."""

    def __init__(self, page):
        super().__init__()
        self.found = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


def test_hostile_names_stay_texts(tmp_path):
    folder = write_run(
        tmp_path / "run", layers=(HOSTILE, "b"), epochs=2, data=HOSTILE, network=HOSTILE
    )
    write_records(folder)
    (folder / "data.json").write_text(json.dumps({"classes": [HOSTILE] * 10}))
    versions = {"command": HOSTILE, "jax": HOSTILE}
    (folder / "versions.json").write_text(json.dumps(versions))
    page = write_report(folder).read_text(encoding="utf-8")
    plain = document("report", {"title": "", "verdict": ""})
    assert [tag for tag, _ in Elements(page).found] == [tag for tag, _ in Elements(plain).found]
    found = unpacked(page)
    assert HOSTILE in found["layers"]["layers"]
    assert found["classes"][0] == found["command"] == HOSTILE


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    ),
    st.text(),
)
def test_any_data_come_back_as_they_were(content, title):
    data = {"title": title, "verdict": title, "content": content}
    page = document("report", data)
    assert unpacked(page) == data
    assert page.count("</script>") == 2


def test_a_page_asks_nothing_of_the_network(folder):
    page = write_report(folder).read_text(encoding="utf-8")
    for tag, attributes in Elements(page).found:
        assert not {"src", "href", "action"} & set(attributes), tag
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    assert "unsafe" not in policy
    assert not re.search(r"fetch\(|XMLHttpRequest|import\(|innerHTML|document\.write", page)


def test_a_page_is_the_same_each_time(folder):
    assert write_report(folder).read_bytes() == write_report(folder).read_bytes()


def test_a_large_run_stays_below_two_megabytes(tmp_path):
    """ResNet34, seven optimizers, 100 classes: what is too much is thinned out."""
    layers = [f"layer{i // 8 + 1}/{i % 8}/conv" for i in range(32)]
    optimizers = ("sgd", "adam", "lars", "bop", "ags", "sad", "ovsw")
    folder = write_run(
        tmp_path / "run", layers=layers, optimizers=optimizers, seeds=(0,), epochs=120
    )
    write_records(folder, classes=100, images=10_000, epochs=range(0, 121, 4))
    path = write_report(folder, images=False)
    assert path.stat().st_size < 2_000_000
    found = unpacked(path.read_text())
    panel = found["latent"]["panels"][0]
    assert panel["epochs"][0] == 0 < len(panel["epochs"]) <= panel["of"] == 31
    assert panel["epochs"][-1] == 120
    assert found["layers"]["maps"][0]["epochs"][-1] == 120
    assert found["examples"] is None
    assert "Example images: left out of this page." in found["missing"]


def test_a_long_run_is_thinned(tmp_path):
    layers = RESNET20_LAYERS
    folder = write_run(tmp_path / "run", layers=layers, seeds=(0,), epochs=200)
    write_records(folder)
    path = write_report(folder)
    found = unpacked(path.read_text())
    assert path.stat().st_size < 2_000_000
    for panel in found["latent"]["panels"]:
        assert len(panel["epochs"]) < panel["of"] == 201
        assert (panel["epochs"][0], panel["epochs"][-1]) == (0, 200)


@pytest.mark.parametrize("name", ["finished", "stopped"])
def test_a_folder_of_version_0_1_says_what_is_missing(tmp_path, name):
    folder = shutil.copytree(VERSION_0_1 / name, tmp_path / name)
    found = unpacked(write_report(folder).read_text())
    said = "\n".join(found["missing"])
    for part in ("Histograms of latent weights", "Confusion matrix", "Example images"):
        assert f"{part}: " in said
    assert "Size of the network: network.json is not in the folder." in said
    assert found["curves"]
    assert found["layers"]


def test_sweeps_show_the_best_of_each_optimizer(tmp_path):
    folder = write_sweep(tmp_path / "run", LARS_AGS, epochs=3)
    found = unpacked(write_report(folder).read_text())
    assert len(found["arms"]) == len(chart(found, "Test top-1")["lines"]) == 13
    shown = [found["arms"][one["arm"]]["key"] for one in found["layers"]["maps"]]
    assert sorted(key.split()[0] for key in shown) == ["ags", "lars", "sgd"]
    assert "lars eta=0.02" in shown
    assert len({arm["color"] for arm in found["arms"]}) == 13


def test_runs_of_real_weights_have_no_heat_maps(tmp_path):
    folder = write_run(tmp_path / "run", optimizers=("sgd",), epochs=2, binary="none")
    ratios = ("never_flipped_ratio", "silent_ratio", "flip_ratio", "epoch_flip_ratio", "layers")
    rows = [{k: v for k, v in row.items() if k not in ratios} for row in read_rows(folder)]
    write_rows(folder, rows)
    found = unpacked(write_report(folder).read_text())
    assert found["layers"] is None
    assert [x["title"] for x in found["curves"]] == ["Test top-1", "Training loss"]
    assert not any("Histograms" in text for text in found["missing"])


@pytest.mark.parametrize(
    ("file", "wrong"),
    [
        ("predictions/ovsw-seed3.npz", b"no zip"),
        ("examples/ovsw-seed3.npz", b"no zip"),
        ("network.json", b"[1]"),
        ("network.json", b'{"small": {"input_shape": 3}}'),
        ("data.json", b'{"classes": ["a"]}'),
    ],
)
def test_a_damaged_file_costs_only_its_part(tmp_path, file, wrong):
    folder = write_records(write_run(tmp_path / "run", epochs=2, seeds=(3,)))
    (folder / file).write_bytes(wrong)
    found = unpacked(write_report(folder).read_text())
    assert found["curves"]
    assert any(Path(file).name in text or "classes" in text for text in found["missing"])
    parts = [text.partition(":")[0] for text in found["missing"]]
    assert len(parts) == len(set(parts))


def test_damaged_histograms_are_left_out(tmp_path):
    folder = write_records(write_run(tmp_path / "run", epochs=2, seeds=(3,)))
    file = folder / "histograms" / "ovsw-seed3.jsonl"
    lines = file.read_text().splitlines()
    broken = json.loads(lines[1])
    broken["layers"]["hidden1"]["silent"] = [-1] * 48
    file.write_text("\n".join([lines[0], json.dumps(broken), lines[2][:-9]]))
    found = unpacked(write_report(folder).read_text())
    assert [panel["epochs"] for panel in found["latent"]["panels"]] == [[0, 1, 2], [0]]


def test_names_of_optimizers_lead_to_no_other_folder(tmp_path):
    folder = write_records(write_run(tmp_path / "run", epochs=1, seeds=(3,)))
    (folder / "secret-seed3.jsonl").write_text((folder / "histograms/sgd-seed3.jsonl").read_text())
    rows = [{**row, "optimizer": "../secret"} for row in read_rows(folder)]
    write_rows(folder, rows)
    found = unpacked(write_report(folder).read_text())
    assert found["latent"] is None
    assert found["answers"] is found["examples"] is None


def test_the_command_writes_pages_and_names_what_is_wrong(tmp_path, capsys):
    folder = write_records(write_run(tmp_path / "run", epochs=1))
    command.main((folder,), images=False)
    assert capsys.readouterr().out.strip() == str(folder / "report.html")
    assert unpacked((folder / "report.html").read_text())["examples"] is None
    with pytest.raises(SystemExit, match="is not a run folder"):
        command.main((tmp_path,))
    with pytest.raises(SystemExit, match="give at least one run folder"):
        command.main(())


def test_pages_are_made_without_jax():
    program = (
        "import sys, experiments.runs, experiments.report.__main__; assert 'jax' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


def test_scripts_are_all_used_and_define_a_name_once():
    static = Path(write_report.__code__.co_filename).parent / "static"
    used = {name for names in SCRIPTS.values() for name in names}
    assert {path.stem for path in static.glob("*.js")} == used
    for names in SCRIPTS.values():
        texts = "\n".join((static / f"{name}.js").read_text() for name in names)
        defined = re.findall(r"^(?:async )?(?:const|function|class) (\w+)", texts, re.MULTILINE)
        assert len(defined) == len(set(defined))


# --- examples/


class Images:
    """Test images whose pixels are their place."""

    def __init__(self, count, shape):
        self.images = np.arange(count, dtype=np.uint8)[:, None, None, None] * np.ones(
            shape, np.uint8
        )

    @property
    def test_count(self):
        return len(self.images)

    def test_images_at(self, places):
        return self.images[places]


def test_examples_are_the_surest_mistakes_and_the_least_sure_right_answers(tmp_path):
    rng = np.random.default_rng(0)
    label, predicted = rng.integers(0, 3, (2, 100))
    probability = rng.permutation(100) / 128  # exact in float16
    file = tmp_path / "predictions" / "sgd-seed0.npz"
    save_predictions(file, Predictions(label, predicted, probability))
    examples.keep(tmp_path, Images(100, (4, 5, 1)))
    found = examples.read(examples.file_of(tmp_path, "sgd-seed0"))
    wrong = sorted(np.flatnonzero(label != predicted), key=lambda i: -probability[i])
    right = sorted(np.flatnonzero(label == predicted), key=lambda i: probability[i])
    assert found.places.tolist() == [*wrong[:12], *right[:12]]
    assert found.images.shape == (24, 4, 5, 1)
    assert found.images[:, 0, 0, 0].tolist() == found.places.tolist()


def test_predictions_of_another_test_set_are_refused(tmp_path):
    answered = Predictions(np.array([0, 1]), np.array([0, 0]), np.array([0.5, 0.5]))
    save_predictions(tmp_path / "predictions" / "sgd-seed0.npz", answered)
    with pytest.raises(
        ValueError, match=r"holds 2 answers, and there are 3 test images: .* Remove"
    ):
        examples.keep(tmp_path, Images(3, (4, 4, 1)))


@pytest.mark.parametrize("channels", [1, 3])
def test_large_examples_are_made_small(tmp_path, channels):
    answered = Predictions(np.array([0, 1]), np.array([0, 0]), np.array([0.5, 0.5]))
    save_predictions(tmp_path / "predictions" / "sgd-seed0.npz", answered)
    examples.keep(tmp_path, Images(2, (224, 112, channels)))
    found = examples.read(examples.file_of(tmp_path, "sgd-seed0"))
    assert found.images.shape == (2, 96, 48, channels)
    assert found.images[0].min() == found.images[0].max() == 1  # the wrong one comes first


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"places": np.zeros(2, int)}, "can't be read"),
        ({"places": np.zeros(2, int), "images": np.zeros((1, 2, 2, 1), np.uint8)}, "must be int64"),
        ({"places": np.zeros(1, int), "images": np.zeros((1, 2, 2, 4), np.uint8)}, "1 or 3"),
        ({"places": np.zeros(1, int), "images": np.zeros((1, 2, 2, 1))}, "float64"),
        ({"places": np.zeros(1, int), "images": np.zeros((1, 4096, 4097, 1), np.uint8)}, "bytes"),
        ({"places": np.array([{}]), "images": np.zeros((1, 2, 2, 1), np.uint8)}, "pickle"),
    ],
)
def test_examples_that_no_run_writes_are_refused(tmp_path, arrays, message):
    np.savez_compressed(tmp_path / "x.npz", **arrays)
    with pytest.raises(ValueError, match=message):
        examples.read(tmp_path / "x.npz")
