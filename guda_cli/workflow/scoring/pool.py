"""The training images that a method scores: a stated subset of the data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from guda_cli.attribution.aggregate import subset
from guda_cli.data.images import pixels_digests
from guda_cli.data.pixel_file import chosen

if TYPE_CHECKING:
    from guda_cli.data.dataset import Dataset
    from guda_cli.workflow.keys.removal import Removal


@dataclass(frozen=True, eq=False)
class Pool:
    """Indices [N] of the chosen images in the data, and their digests."""

    data: Dataset
    indices: npt.NDArray[np.int64]
    digests: tuple[str, ...]

    @staticmethod
    def of(data: Dataset, per_group: int | None, seed: int) -> Pool:
        """At most `per_group` images of each group (see `attribution.aggregate.subset`)."""
        every = pixels_digests(data.images)
        indices = subset(data.membership, per_group, seed, every)
        return Pool(data, indices, tuple(every[i] for i in indices))

    @property
    def pixels(self) -> npt.NDArray[np.uint8]:
        """uint8 [N, C, H, W]."""
        return chosen(self.data.images, self.indices)

    def members(self, removals: list[Removal]) -> npt.NDArray[np.bool_]:
        """bool [N, len(removals)]: which images each removal would take away."""
        return np.stack([what.members(self.data)[self.indices] for what in removals], axis=1)
