"""Constants that name a format; free of imports, so that asking for a fingerprint costs nothing."""

from __future__ import annotations

PREPROCESSING_VERSION = 2
"""Goes up whenever `images.preprocess` gives other pixels for some image."""

DATASET_VERSION = 3
"""Goes up whenever a reader names, orders, groups or selects images differently."""

IMAGE_SUFFIXES = frozenset(
    {
        ".png",
        ".apng",
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".webp",
        ".avif",
        ".heic",
        ".heif",
        ".hif",
        ".jxl",
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
