"""The rectangle of a random resized crop: the augmentation of streamed images.

Images in memory are shifted and flipped instead: `augment.py`.

Source: C. Szegedy et al., "Going Deeper with Convolutions", 2015, section 6 (area 8 % to 100 %,
aspect ratio 3/4 to 4/3), here with areas up to 125 % as in the OvSW recipe. The fallback for
rectangles that do not fit is that of torchvision's RandomResizedCrop.
"""

import math

import numpy as np

from experiments.data.image_file import Box

AREA = (0.08, 1.25)  # of the crop, as a share of the image's
ASPECT = (3 / 4, 4 / 3)  # width / height of the crop
TRIALS = 10  # rectangles drawn before the centre is taken


def random_box(rng: np.random.Generator, width: int, height: int) -> Box:
    """Draws the rectangle of a random resized crop from an image of `width` x `height` pixels.

    Area share and the logarithm of the aspect ratio are uniform. A rectangle that does not fit into
    the image is drawn again, 10 times in all; then it is the largest central one of an allowed
    aspect ratio. The position is uniform over the places where the rectangle fits.

    Returns:
      (left, upper, right, lower), inside the image and not empty.

    >>> random_box(np.random.default_rng(0), 500, 375)
    (64, 161, 199, 339)
    """
    for _ in range(TRIALS):
        area = width * height * rng.uniform(*AREA)
        aspect = math.exp(rng.uniform(math.log(ASPECT[0]), math.log(ASPECT[1])))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            left = int(rng.integers(width - w + 1))
            upper = int(rng.integers(height - h + 1))
            return left, upper, left + w, upper + h
    return _central_box(width, height)


def _central_box(width: int, height: int) -> Box:
    narrowest, widest = ASPECT
    w = min(width, max(1, round(height * widest)))
    h = min(height, max(1, round(width / narrowest)))
    left, upper = (width - w) // 2, (height - h) // 2
    return left, upper, left + w, upper + h
