"""Common random numbers: noise as a pure function of what it is drawn for (docs/methods.md)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def seed_of(*parts: object) -> int:
    """A 63-bit seed from the text of `parts`; the same on every machine."""
    text = "|".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(*parts: object) -> torch.Generator:
    """A CPU generator seeded by `seed_of(*parts)`."""
    import torch  # here, as what reads the store needs seeds only

    return torch.Generator().manual_seed(seed_of(*parts))


class QueryNoise:
    """Noise for (query pixels, seed, t, draw): never of the batch, the file name or the device."""

    def __init__(self, seed: int) -> None:
        import torch

        self.seed = seed
        self._generator = torch.Generator()

    def fill(self, out: torch.Tensor, cells: Sequence[tuple[str, int, int]]) -> torch.Tensor:
        """Fill `out` [N, ...] (float32, CPU) with unit normal noise for N cells (digest, t, draw).

        The draw -1 - n is the mirror of draw n: its noise with the sign changed.
        """
        for row, (digest, t, draw) in zip(out, cells, strict=True):
            number = draw if draw >= 0 else -1 - draw
            self._generator.manual_seed(seed_of("guda.noise/1", digest, self.seed, t, number))
            row.normal_(generator=self._generator)
            if draw < 0:
                row.neg_()
        return out
