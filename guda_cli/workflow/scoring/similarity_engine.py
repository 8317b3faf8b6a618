"""`similarity`: cosine of a query's embedding with that of every training image."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from guda_cli.attribution.rivals.embeddings import PIXELS, Encoder, cosine, load_encoder
from guda_cli.attribution.rivals.engine import Advance, Arrays, Engine, Prepared
from guda_cli.data.queries import Query
from guda_cli.diffusion.schedule import Array
from guda_cli.workflow.scoring.pool import Pool


class Similarity(Engine):
    """Embeddings of the training images once, of each query as it comes; no diffusion model is run."""

    def __init__(self, pool: Pool, encoder: str, device: str) -> None:
        self.pool, self.name = pool, encoder
        self.device = "cpu" if device == "auto" else device

    @cached_property
    def encoder(self) -> Encoder:
        """Loaded once."""
        return load_encoder(self.name, self.pool.data.images, self.device)

    def expected_forwards(self) -> int:
        """See `Engine`: one embedding a training image."""
        return 0 if self.name == PIXELS else len(self.pool.indices)

    def prepare(self, advance: Advance) -> Prepared:
        """Unit embeddings [N, D] of the training images."""
        found = self.encoder.embed(self.pool.pixels)
        advance(self.expected_forwards())
        return Prepared({"embeddings": found}, 0.0, {"encoder": self.encoder.identity})

    def scores(self, prepared: Arrays, queries: Sequence[Query]) -> tuple[Array, float]:
        """See `Engine`; an embedding is not counted as a forward of the diffusion model."""
        embedded = self.encoder.embed(np.stack([query.pixels for query in queries]))
        return cosine(embedded, np.asarray(prepared["embeddings"])), 0.0
