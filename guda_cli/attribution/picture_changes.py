"""How far apart two pictures are, and what removing the named groups changes beside removing others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from guda_cli.data.dataset import Pixels

_SIGMA = 1.5  # of the Gaussian window, as Wang et al. 2004
_STABLE = ((0.01 * 255) ** 2, (0.03 * 255) ** 2)


class Paired(NamedTuple):
    """Means over images of two values each, of their differences, and these' 95 % interval (t).

    `low` and `high` are None with fewer than two images; `share` of the images have the first value higher.
    """

    first: float
    second: float
    difference: float
    low: float | None
    high: float | None
    share: float


def levels(one: Pixels, other: Pixels) -> float:
    """Mean absolute difference of two uint8 images, in levels of 0 to 255."""
    return float(np.abs(one.astype(np.int16) - other.astype(np.int16)).mean())


def structure(one: Pixels, other: Pixels) -> float:
    """1 - SSIM of two uint8 images [C, H, W], mean over channels (Wang et al. 2004): 0 (equal) to 2.

    With their Gaussian window and constants; images are mirrored at their borders, so that small ones have an
    answer too.
    """
    from scipy.ndimage import gaussian_filter

    def local(image: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.asarray(gaussian_filter(image, (0.0, _SIGMA, _SIGMA), truncate=3.5))

    x, y = one.astype(np.float64), other.astype(np.float64)
    mean_x, mean_y = local(x), local(y)
    spread = local(x * x) + local(y * y) - mean_x**2 - mean_y**2
    together = local(x * y) - mean_x * mean_y
    c1, c2 = _STABLE
    brightness = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    return float(1.0 - (brightness * (2 * together + c2) / (spread + c2)).mean())


def paired(first: Sequence[float], second: Sequence[float]) -> Paired:
    """Compare two values of each of one or more images."""
    from scipy.stats import t

    one, other = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    apart = one - other
    mean, share = float(apart.mean()), float((apart > 0).mean())
    low = high = None
    if len(apart) > 1:
        reach = float(t.ppf(0.975, len(apart) - 1) * apart.std(ddof=1) / np.sqrt(len(apart)))
        low, high = mean - reach, mean + reach
    return Paired(float(one.mean()), float(other.mean()), mean, low, high, share)
