"""Random resized crops against an independent simulation, and decoding against plain Pillow."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy import stats
from sklearn.datasets import load_sample_image

from experiments.data import crops, image_file


@pytest.fixture(scope="module")
def photo():
    """640x427 pixels of a real photograph."""
    return Image.fromarray(load_sample_image("china.jpg"))


def encoded(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def simulated_sides(rng, width, height, count):
    """Float64 widths and heights by rejection, all at once; NaN where ten draws did not fit."""
    share = 0.08 + (1.25 - 0.08) * rng.random((count, 10))
    aspect = (3 / 4) * (16 / 9) ** rng.random((count, 10))
    w = np.rint(np.sqrt(width * height * share * aspect))
    h = np.rint(np.sqrt(width * height * share / aspect))
    fits = (w <= width) & (h <= height)
    first = fits.argmax(axis=1)
    rows = np.arange(count)
    found = fits.any(axis=1)
    return np.where(found, w[rows, first], np.nan), np.where(found, h[rows, first], np.nan)


@pytest.mark.parametrize(("width", "height"), [(500, 375), (300, 300), (375, 800)])
def test_boxes_are_distributed_as_simulated(width, height):
    rng = np.random.default_rng(0)
    boxes = np.array([crops.random_box(rng, width, height) for _ in range(4000)])
    w, h = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    oracle_w, oracle_h = simulated_sides(np.random.default_rng(1), width, height, 40_000)
    given_up = np.isnan(oracle_w).mean()
    assert given_up < 0.02
    oracle_w, oracle_h = oracle_w[~np.isnan(oracle_w)], oracle_h[~np.isnan(oracle_h)]
    assert stats.ks_2samp(w * h, oracle_w * oracle_h).pvalue > 0.01
    assert stats.ks_2samp(w / h, oracle_w / oracle_h).pvalue > 0.01
    # Uniform over the places where a box fits; randomly rounded to a continuous value.
    for start, free in ((boxes[:, 0], width - w), (boxes[:, 1], height - h)):
        place = (start + rng.random(len(start))) / (free + 1)
        assert stats.kstest(place, "uniform").pvalue > 0.01


@given(width=st.integers(1, 3000), height=st.integers(1, 3000), seed=st.integers(0, 2**32))
def test_a_box_lies_inside(width, height, seed):
    left, upper, right, lower = crops.random_box(np.random.default_rng(seed), width, height)
    assert 0 <= left < right <= width
    assert 0 <= upper < lower <= height


@pytest.mark.parametrize(
    ("size", "box"),
    [((1000, 60), (460, 0, 540, 60)), ((60, 1000), (0, 460, 60, 540)), ((1, 1), (0, 0, 1, 1))],
)
def test_where_nothing_fits_it_is_the_centre(size, box, monkeypatch):
    monkeypatch.setattr(crops, "TRIALS", 0)
    assert crops.random_box(np.random.default_rng(0), *size) == box


@pytest.mark.parametrize(
    "box", [(0, 0, 640, 427), (100, 50, 180, 110), (3, 5, 4, 6), (300, 0, 560, 420)]
)
def test_a_crop_is_what_pillow_resizes(photo, box):
    crop = image_file.decode_crop(encoded(photo, "PNG"), "a", lambda w, h: box, 64)
    exact = photo.resize((64, 64), Image.Resampling.BILINEAR, box=box)
    assert crop.shape == (64, 64, 3)
    difference = np.abs(crop.astype(int) - np.asarray(exact))
    assert difference.mean() < (1 if box[2] - box[0] > 3 * 64 else 1e-9)  # reduced in two steps


def test_a_jpeg_decoded_smaller_looks_the_same(photo):
    data = encoded(photo, "JPEG", quality=90)
    for box in ((0, 0, 640, 427), (50, 20, 550, 400), (10, 30, 100, 120)):
        crop = image_file.decode_crop(data, "a", lambda w, h, box=box: box, 64)
        exact = Image.open(io.BytesIO(data)).resize((64, 64), Image.Resampling.BILINEAR, box=box)
        difference = np.abs(crop.astype(int) - np.asarray(exact)).mean()
        # The last box is too small for it.
        assert difference < 1.5 if box[2] - box[0] > 128 else difference == 0


@pytest.mark.parametrize("size", [(640, 427), (427, 640), (100, 100), (33, 29), (40, 600)])
def test_the_centre_is_that_of_the_resized_image(photo, size):
    image = photo.resize(size)
    square = image_file.decode_centre(encoded(image, "PNG"), "a", 64, 56)
    scale = 64 / min(size)
    resized = image.resize(
        (round(size[0] * scale), round(size[1] * scale)), Image.Resampling.BILINEAR
    )
    left, upper = (resized.width - 56) // 2, (resized.height - 56) // 2
    exact = np.asarray(resized.crop((left, upper, left + 56, upper + 56)))
    assert square.shape == (56, 56, 3)
    difference = np.abs(square.astype(int) - exact)
    if min(size) < 3 * 64:
        assert difference.max() <= 1
    assert difference.mean() < 1


def test_a_long_strip_needs_no_huge_image():
    square = image_file.decode_centre(encoded(Image.new("RGB", (1, 60_000)), "PNG"), "a", 256, 224)
    assert square.shape == (224, 224, 3)


CORRUPT_EXIF = b"Exif\0\0II*\0\x08\0\0\0\x02\0\x1a\x01\x05\0\xff\0\0\0\xf0\xff\xff\0\x12\x01"
ROTATED = Image.Exif()
ROTATED[0x0112] = 6  # orientation: which is not followed, as in ImageNet's usual pipelines


@pytest.mark.parametrize(
    ("mode", "kind", "options"),
    [
        ("CMYK", "JPEG", {}),
        ("L", "JPEG", {}),
        ("RGB", "JPEG", {"exif": CORRUPT_EXIF}),
        ("RGB", "JPEG", {"exif": ROTATED}),
        ("RGB", "JPEG", {"progressive": True}),
        ("RGB", "PNG", {}),
        ("P", "PNG", {"transparency": b"\x00\x80"}),
        ("LA", "PNG", {}),
        ("RGBA", "PNG", {}),
        ("1", "PNG", {}),
    ],
)
def test_whatever_the_mode_it_is_rgb(tmp_path, mode, kind, options):
    image_file.silence_pillow()
    image = Image.new("RGB", (40, 30), (200, 60, 30))
    image.paste((20, 160, 40), (0, 0, 40, 15))
    (tmp_path / "a.JPEG").write_bytes(encoded(image.convert(mode), kind, **options))
    crop = image_file.decode_crop(tmp_path / "a.JPEG", None, lambda w, h: (0, 15, 40, 30), 8)
    centre = image_file.decode_centre(tmp_path / "a.JPEG", None, 8, 8)
    for square in (crop, centre):
        assert square.shape == (8, 8, 3)
        assert square.dtype == np.uint8
    gray = np.asarray(image.convert("L").convert("RGB"))[20, 20].astype(int)
    expected = gray if mode in ("L", "LA") else np.array([200, 60, 30])
    if mode != "1":  # dithered
        np.testing.assert_allclose(crop[4:, 4:].mean((0, 1)), expected, atol=8)


def test_odd_metadata_is_no_warning(tmp_path):
    image = Image.new("RGB", (40, 30), (200, 60, 30))
    data = encoded(image, "JPEG", exif=CORRUPT_EXIF)
    start = data.index(b"JFIF") - 4  # without the JFIF header Pillow looks into EXIF for the scale
    length = int.from_bytes(data[start + 2 : start + 4], "big")
    (tmp_path / "a.jpg").write_bytes(data[:start] + data[start + 2 + length :])
    with pytest.raises(UserWarning, match=r"Tag data larger than file|Truncated File Read"):
        Image.open(io.BytesIO((tmp_path / "a.jpg").read_bytes()))
    image_file.silence_pillow()
    assert image_file.decode_centre(tmp_path / "a.jpg", None, 8, 8).shape == (8, 8, 3)
    assert image_file.decode(tmp_path / "a.jpg").shape == (30, 40, 3)
