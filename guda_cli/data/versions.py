"""Constants that name a format; free of imports, so that asking for a fingerprint costs nothing."""

from __future__ import annotations

PREPROCESSING_VERSION = 1
"""Goes up whenever `images.preprocess` gives other pixels for some image."""

DATASET_VERSION = 3
"""Goes up whenever a reader names, orders, groups or selects images differently."""

IMAGE_SUFFIXES = frozenset(
    {
        ".png",
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".webp",
        ".avif",
        ".bmp",
        ".gif",
        ".tif",
        ".tiff",
        ".ppm",
        ".pgm",
        ".pbm",
    }
)
"""Lower-case endings of the files that count as images."""
