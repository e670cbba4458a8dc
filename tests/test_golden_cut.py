"""The committed reference numbers: the cut of the full ones, without images, small."""

import numpy as np
import pytest

from tests import golden, golden_cut

FILES = sorted(golden_cut.KEPT)


@pytest.mark.parametrize("name", FILES)
def test_committed_numbers_are_the_cut_of_the_full_ones(name):
    committed, full = golden.load(name).committed, golden.load(name).full
    if not full:
        pytest.skip(f"{name}.npz is not in {golden.FULL_FOLDER}")
    expected = golden_cut.cut(name, full)
    assert list(committed) == list(expected)
    for key, array in expected.items():
        assert committed[key].dtype == array.dtype, key
        assert committed[key].shape == array.shape, key
        assert committed[key].tobytes() == array.tobytes(), key  # zeros with their sign, NaNs


def test_every_file_is_committed_and_described():
    manifest = (golden_cut.FOLDER / "MANIFEST.md").read_text(encoding="utf-8")
    assert sorted(p.name for p in golden_cut.FOLDER.iterdir()) == [
        "MANIFEST.md",
        "accelerators.json",  # what compilers say, which the manifest describes as well
        *(f"{name}.npz" for name in FILES),
    ]
    assert all(f"## {name}.npz" in manifest for name in FILES)
    assert sum(p.stat().st_size for p in golden_cut.FOLDER.iterdir()) < 5e6


def test_no_images_are_committed():
    """Nor the signs of early layers' inputs, which show them."""
    data = golden.load("model_step").committed
    assert not {"x", "images_uint8_nhwc"} & set(data)
    signs = [key for key in data if "input_positive_bits" in key]
    assert signs
    assert all("/layer3." in key for key in signs)


def test_a_missing_array_skips_with_a_reason(monkeypatch, tmp_path):
    monkeypatch.setattr(golden, "FULL_FOLDER", tmp_path)
    data = golden.load("model_step")
    assert "x" not in data
    with pytest.raises(pytest.skip.Exception, match=r"^x of model_step\.npz is not in"):
        data["x"]


def test_the_full_numbers_serve_where_the_cut_has_none(monkeypatch, tmp_path):
    monkeypatch.setattr(golden, "FULL_FOLDER", tmp_path)
    np.savez(tmp_path / "schedule.npz", cifar_e300_w5=np.zeros(1), other=np.ones(1))
    data = golden.load("schedule")
    assert data["other"] == 1
    assert data["cifar_e300_w5"].shape == (300,)  # the committed ones come first
    assert set(data) == {*data.committed, "other"}
