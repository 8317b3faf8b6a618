"""The 1,797 handwritten digits of 8x8 pixels that come with scikit-learn: data without a download."""

from __future__ import annotations

import numpy as np

from guda_cli.data.dataset import Dataset, Progress
from guda_cli.data.sources.packed import check_group, from_arrays
from guda_cli.sections import DataSpec


def read_digits(spec: DataSpec, progress: Progress | None = None) -> Dataset:
    """`sklearn.datasets.load_digits`, its 0..16 scaled to 0..255, in groups digit-0 to digit-9."""
    from sklearn.datasets import load_digits

    check_group(spec, "digits")
    bunch = load_digits()
    pixels = np.rint(bunch.images * (255 / 16)).astype(np.uint8)[:, None]
    return from_arrays(pixels, bunch.target, [f"digit-{d}" for d in range(10)], spec, progress)
