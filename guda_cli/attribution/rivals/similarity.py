"""`similarity`: cosine of a query's embedding with that of every training image."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt

from guda_cli.attribution.rivals.embeddings import PIXELS, Embeddings, Encoder, PixelEncoder
from guda_cli.attribution.rivals.engine import Advance, Arrays, Engine, Prepared
from guda_cli.data.dataset import Pixels
from guda_cli.data.queries import Query
from guda_cli.diffusion.schedule import Array


def cosine(queries: Embeddings, training: Embeddings) -> npt.NDArray[np.float64]:
    """Cosines float64 [Q, N] of unit vectors [Q, D] and [N, D], one query at a time.

    (A product of matrices would round differently with the number of queries.)
    """
    rows: Iterable[npt.NDArray[np.float32]] = (training @ query for query in queries)
    out = np.zeros((len(queries), len(training)))
    for row, values in zip(out, rows, strict=True):
        np.clip(values, -1.0, 1.0, out=row)
    return out


def load_encoder(name: str, training: Pixels, device: str = "cpu") -> Encoder:
    """The encoder `pixels`, or the CLIP or DINO model in the folder (or of the hub id) `name`.

    `training` is uint8 [N, C, H, W]. Raises UsageError, DataError or MissingError: see `vision_encoder.load`.
    """
    if name == PIXELS:
        return PixelEncoder(training)
    from guda_cli.attribution.rivals import vision_encoder

    return vision_encoder.load(name, device)


class Similarity(Engine):
    """Embeddings of the training images once, of each query as it comes; no diffusion model is run."""

    @cached_property
    def encoder(self) -> Encoder:
        """Loaded once."""
        device = "cpu" if self.context.device == "auto" else self.context.device
        return load_encoder(self.context.encoder, self.context.training, device)

    def expected_forwards(self) -> int:
        """See `Engine`: one embedding a training image."""
        return 0 if self.context.encoder == PIXELS else len(self.context.indices)

    def prepare(self, advance: Advance) -> Prepared:
        """Unit embeddings [N, D] of the training images."""
        found = self.encoder.embed(self.context.training[self.context.indices])
        advance(self.expected_forwards())
        return Prepared({"embeddings": found}, 0.0, {"encoder": self.encoder.identity})

    def scores(self, prepared: Arrays, queries: Sequence[Query]) -> tuple[Array, float]:
        """See `Engine`; an embedding is not counted as a forward of the diffusion model."""
        embedded = self.encoder.embed(np.stack([query.pixels for query in queries]))
        return cosine(embedded, np.asarray(prepared["embeddings"])), 0.0
