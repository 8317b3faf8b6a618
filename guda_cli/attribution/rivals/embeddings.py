"""Encoders of images for `similarity`, by default the pixels themselves.

With CLIP ViT-L/14 as encoder this is the CLIPA of arXiv 2601.22651.
"""

from __future__ import annotations

import hashlib
from typing import Protocol

import numpy as np
import numpy.typing as npt

from guda_cli.data.dataset import Pixels
from guda_cli.data.images import to_float
from guda_cli.data.pixel_file import blocks

Embeddings = npt.NDArray[np.float32]

PIXELS = "pixels"
"""Name of the encoder that needs no download."""


class Encoder(Protocol):
    """Something that makes vectors of images; `identity` enters cache keys in place of a path."""

    identity: str

    def embed(self, pixels: Pixels, batch_size: int = 64) -> Embeddings:
        """Unit vectors float32 [N, D] of uint8 images [N, C, H, W]; a zero vector stays zero."""
        ...


class PixelEncoder:
    """Pixels in [-1, 1] less the mean training image, so that what all images share plays no part.

    (The cosine of raw pixels is close to 1 for every pair: the common background and brightness fill it.)
    """

    def __init__(self, training: Pixels) -> None:
        sums = [training[part].sum(axis=0, dtype=np.uint64) for part in blocks(training)]
        mean = np.sum(sums, axis=0) / len(training)  # integers: exact in any order
        self.mean = (mean / 127.5 - 1.0).astype(np.float32)
        sha = hashlib.sha256(b"guda.pixel-encoder/1\0" + str(self.mean.shape).encode())
        sha.update(self.mean.astype("<f4").tobytes())
        self.identity = f"pixels/1:{sha.hexdigest()}"

    def embed(self, pixels: Pixels, batch_size: int = 64) -> Embeddings:
        """See `Encoder.embed`; D = C * H * W."""
        del batch_size  # plain arithmetic
        return unit((to_float(pixels) - self.mean).reshape(len(pixels), -1))


def unit(vectors: npt.NDArray[np.floating]) -> Embeddings:
    """Rows of [N, D] divided by their length, float32; zero rows stay zero."""
    wide = vectors.astype(np.float64)
    length = np.sqrt(np.einsum("nd,nd->n", wide, wide))[:, None]
    scaled: npt.NDArray[np.float64] = np.divide(wide, length, out=np.zeros_like(wide), where=length > 0.0)
    return scaled.astype(np.float32)
