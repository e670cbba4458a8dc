"""One image file: bytes -> pixels, with hostile and damaged files refused."""

import io
import os
import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

# Pillow knows many more, some of which start other programs (EPS runs Ghostscript).
_SUFFIXES = {
    "PNG": (".png",),
    "JPEG": (".jpg", ".jpeg"),
    "BMP": (".bmp",),
    "WEBP": (".webp",),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".pgm", ".ppm"),
}
SUFFIXES = frozenset(suffix for group in _SUFFIXES.values() for suffix in group)
LOSSY_SUFFIXES = frozenset({".jpg", ".jpeg", ".webp"})  # webp can be either

_GRAY = frozenset({"1", "L", "LA", "La"})
_WIDE = ("I", "F")  # I, I;16, I;16B, F: more than 8 bits a pixel


def decode(file: Path | bytes, name: str | None = None) -> NDArray[np.uint8]:
    """The pixels of one image, gray or RGB.

    Palettes are resolved to RGB and an alpha channel is dropped.

    Args:
      file: path of an image file, or its bytes.
      name: what error messages call the image; the path where there is one.

    Returns:
      uint8 (height, width, channels), 1 channel for a gray image and 3 for any other.

    Raises:
      ValueError: the file is damaged, no image of a known format, has more than 8 bits a channel,
        or announces so many pixels that decoding it could exhaust memory.
    """
    name = name if name is not None else str(file)
    try:
        with warnings.catch_warnings():
            # Pillow's limit against decompression bombs is a mere warning up to twice its size.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            handle = io.BytesIO(file) if isinstance(file, bytes) else os.fspath(file)
            with Image.open(handle, formats=tuple(_SUFFIXES)) as image:
                image.load()
                return _to_array(image)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise ValueError(
            f"{name} announces more pixels than the limit against decompression bombs allows "
            f"({Image.MAX_IMAGE_PIXELS:,}): make it smaller or remove it"
        ) from error
    except _WideError as error:
        raise ValueError(
            f"{name} has more than 8 bits a channel (mode {error}): convert it to 8 bits"
        ) from error
    except Exception as error:  # decoders raise whatever a damaged file makes them stumble over
        raise ValueError(
            f"{name} cannot be decoded: it is damaged or no image ({error}); replace or remove it"
        ) from error


class _WideError(Exception):
    """An image whose channels do not fit uint8."""


def _to_array(image: Image.Image) -> NDArray[np.uint8]:
    if image.mode.startswith(_WIDE):  # converting would clip silently
        raise _WideError(image.mode)
    if image.mode in _GRAY:
        return np.asarray(image.convert("L"))[..., None]
    if image.mode in ("P", "PA"):  # straight to RGB warns where the palette has transparency
        image = image.convert("RGBA")
    return np.asarray(image.convert("RGB"))
