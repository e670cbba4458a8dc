"""One image file: bytes -> pixels, with hostile and damaged files refused."""

import contextlib
import io
import math
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # else imported where it is used: a step is compiled without it
    from PIL import Image

# Pillow knows many more, some of which start other programs (EPS runs Ghostscript).
_SUFFIXES = {
    "PNG": (".png",),
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "BMP": (".bmp",),
    "WEBP": (".webp",),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".pgm", ".ppm"),
    "GIF": (".gif",),
}
SUFFIXES = frozenset(suffix for group in _SUFFIXES.values() for suffix in group)
LOSSY_SUFFIXES = frozenset({*_SUFFIXES["JPEG"], ".webp"})  # webp can be either

_GRAY = frozenset({"1", "L", "LA", "La"})
_WIDE = ("I", "F")  # I, I;16, I;16B, F: more than 8 bits a pixel

_ORIENTATION, _UPRIGHT = 0x0112, 1  # of EXIF

_DRAFT_GAP = 2  # a JPEG decoded smaller keeps so many times the pixels needed, along either side
_REDUCING_GAP = 3.0  # Pillow: with 3.0 the result is almost that of resizing in one step

Box = tuple[int, int, int, int]  # left, upper, right, lower; the last two lie outside


def decode(
    file: Path | bytes, name: str | None = None, turned: list[str] | None = None
) -> NDArray[np.uint8]:
    """The stored pixels of one image, gray or RGB.

    Palettes are resolved to RGB and an alpha channel is dropped. EXIF's orientation is ignored;
    Pillow follows that of TIFF.

    Args:
      file: path of an image file, or its bytes.
      name: what error messages call the image; None is the path.
      turned: gets the name of an image whose EXIF orientation is not upright.

    Returns:
      uint8 (height, width, channels), 1 channel for a gray image and 3 for any other.

    Raises:
      ValueError: the file is damaged, no image of a known format, holds several images, has more
        than 8 bits of gray, or announces so many pixels that decoding it could exhaust memory.
    """
    with warnings.catch_warnings():
        silence_pillow()
        with _opened(file, name) as image:
            image.load()
            if turned is not None and _is_turned(image):
                turned.append(name or str(file))
            return _to_array(image)


def decode_crop(
    file: Path | bytes, name: str | None, choose: Callable[[int, int], Box], size: int
) -> NDArray[np.uint8]:
    """A rectangle of one image, resized (bilinear) to a square: uint8 (size, size, 3), RGB.

    Several threads may call it at once. A JPEG is decoded at a half, a quarter or an eighth of its
    size if the rectangle then still has twice the width and height of the square.

    Args:
      file: path of an image file, or its bytes.
      name: what error messages call the image; None is the path.
      choose: (width, height) of the image -> the rectangle.
      size: side of the square in pixels.

    Raises:
      ValueError: as for `decode`.
    """
    with _opened(file, name) as image:
        return _resized(image, choose(*image.size), size)


def decode_centre(
    file: Path | bytes, name: str | None, shorter: int, size: int
) -> NDArray[np.uint8]:
    """The central square of an image whose shorter side is first resized to `shorter` pixels.

    Arguments, result and errors are as for `decode_crop`; `size` is at most `shorter`.
    """
    with _opened(file, name) as image:
        return _centre(image, shorter, size)


def centre(pixels: NDArray[np.uint8], shorter: int, size: int) -> NDArray[np.uint8]:
    """The same of decoded pixels, uint8 (height, width, 1 or 3)."""
    from PIL import Image

    shown = pixels[..., 0] if pixels.shape[-1] == 1 else pixels
    return _centre(Image.fromarray(shown), shorter, size)


def silence_pillow() -> None:
    """Switches off Pillow's warnings of odd metadata, and of sizes, which are checked here.

    It acts on the whole process, since warnings can only be caught for all threads together.
    """
    from PIL import Image

    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)


@contextlib.contextmanager
def _opened(file: Path | bytes, name: str | None) -> Iterator["Image.Image"]:
    """The opened image; errors of opening and decoding name the file."""
    from PIL import Image

    name = name if name is not None else str(file)
    handle = io.BytesIO(file) if isinstance(file, bytes) else os.fspath(file)
    try:
        with Image.open(handle, formats=tuple(_SUFFIXES)) as image:
            # Up to twice its limit against decompression bombs Pillow itself merely warns.
            if math.prod(image.size) > (Image.MAX_IMAGE_PIXELS or math.inf):
                raise Image.DecompressionBombError
            if image.mode.startswith(_WIDE):  # converting would clip silently
                raise _WideError(image.mode)
            # A JPEG of several (MPO) is a photograph with a preview or a depth map of it.
            if getattr(image, "is_animated", False) and image.format != "MPO":
                raise _SeveralError
            yield image
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise ValueError(
            f"{name} announces more pixels than the limit against decompression bombs allows "
            f"({Image.MAX_IMAGE_PIXELS:,}): make it smaller or remove it"
        ) from error
    except _WideError as error:
        raise ValueError(
            f"{name} has more than 8 bits a channel (mode {error}): convert it to 8 bits"
        ) from error
    except _SeveralError as error:
        raise ValueError(
            f"{name} holds several images, frames of an animation or pages: save the one that "
            "counts as a file of its own"
        ) from error
    except Exception as error:  # decoders raise whatever a damaged file makes them stumble over
        if isinstance(error, OSError) and error.strerror:  # of the system, not of a decoder
            raise ValueError(
                f"{name} cannot be read ({error.strerror}): put it back, or make it readable"
            ) from error
        raise ValueError(
            f"{name} cannot be decoded: it is damaged or no image ({error}); replace or remove it"
        ) from error


class _WideError(Exception):
    """An image whose channels do not fit uint8."""


class _SeveralError(Exception):
    """A file that is not one image."""


def _is_turned(image: "Image.Image") -> bool:
    if "exif" not in image.info:
        return False
    with contextlib.suppress(Exception):  # what is wrong with metadata is no fault of the pixels
        return image.getexif().get(_ORIENTATION, _UPRIGHT) != _UPRIGHT
    return False


def _to_array(image: "Image.Image") -> NDArray[np.uint8]:
    if image.mode in _GRAY:
        return np.asarray(image.convert("L"))[..., None]
    return np.asarray(_to_rgb(image))


def _to_rgb(image: "Image.Image") -> "Image.Image":
    if image.mode in ("P", "PA"):  # straight to RGB warns where the palette has transparency
        image = image.convert("RGBA")
    return image.convert("RGB")


def _resizable(image: "Image.Image") -> "Image.Image":
    """Gray or RGB: in other modes a mean of two pixels is not the colour between them."""
    if image.mode in _GRAY:
        return image.convert("L")
    return image if image.mode == "RGB" else _to_rgb(image)


def _centre(image: "Image.Image", shorter: int, size: int) -> NDArray[np.uint8]:
    width, height = image.size
    across, down = (round(side * shorter / min(image.size)) for side in image.size)
    left, upper = (across - size) // 2, (down - size) // 2
    # The same pixels as of the whole image resized, which can be huge if it is one long strip.
    x, y = width / across, height / down
    box = (left * x, upper * y, (left + size) * x, (upper + size) * y)
    return _resized(image, box, size)


def _resized(
    image: "Image.Image", box: tuple[float, float, float, float], size: int
) -> NDArray[np.uint8]:
    from PIL import Image

    left, upper, right, lower = box
    width, height = image.size
    least = _DRAFT_GAP * size
    needed = math.ceil(width * least / (right - left)), math.ceil(height * least / (lower - upper))
    draft = image.draft(None, needed)  # None for other formats
    scale = 1.0 if draft is None else draft[1][2] / width
    width, height = image.size
    square = _resizable(image).resize(
        (size, size),
        Image.Resampling.BILINEAR,
        # Rounding may have led out of the image.
        box=(left * scale, upper * scale, min(right * scale, width), min(lower * scale, height)),
        reducing_gap=_REDUCING_GAP,
    )
    return np.asarray(square.convert("RGB"))
