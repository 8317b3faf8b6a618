"""The method of this package."""

from collections.abc import Sequence

import numpy as np

from guda_cli.attribution.rivals.engine import Advance, Arrays, Engine, Prepared
from guda_cli.data.queries import Query
from guda_cli.diffusion.schedule import Array


class Brightness(Engine):
    """Minus the distance of mean brightness, times `contrast`."""

    def expected_forwards(self) -> int:
        return 0

    def prepare(self, advance: Advance) -> Prepared:
        pool = self.context.training[self.context.indices]
        return Prepared({"means": pool.mean(axis=(1, 2, 3))}, 0.0, {})

    def scores(self, prepared: Arrays, queries: Sequence[Query]) -> tuple[Array, float]:
        means = np.array([[query.pixels.mean()] for query in queries])
        return -self.values["contrast"] * abs(means - np.asarray(prepared["means"])), 0.0
