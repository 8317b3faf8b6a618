"""Random projection of per-sample gradients: inner products of P numbers from a few thousand.

TRAK (Park et al. 2023, section 3.2) needs only inner products of gradients, which a random projection keeps
in expectation (Johnson & Lindenstrauss 1984). The projectors of attribution libraries (traker 0.3,
dattri 0.3) multiply by a dense random matrix on the CPU: P times d products a sample, several times what a
backward pass costs here. A count sketch costs P.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from guda_cli.diffusion.noise import generator
from guda_cli.errors import UsageError

DEFAULT_DIMS = 2048


class Projection(Protocol):
    """A linear map from P numbers to `dims`."""

    parameters: int
    dims: int

    def __call__(self, parts: Sequence[Tensor]) -> Tensor:
        """Project k vectors given in `parts` [k, ...], whose columns side by side are P: [k, dims]."""
        ...


class CountSketch:
    """Every number, with a random sign, is added to one of `dims` sums (Weinberger et al. 2009).

    The numbers lie in runs of `dims`; a run's numbers go to sums of their own, turned by the run's random
    shift. So two numbers of different runs meet with probability 1 / dims, those of one run never,
    and with independent signs

        E <Sx, Sy> = <x, y>,   Var <Sx, Sy> <= (|x|^2 |y|^2 + <x, y>^2) / dims,

    the variance of a dense Gaussian projection. With `dims` >= P all inner products are exact.
    The signs depend on (seed, P, dims) alone, drawn on the CPU; each vector is projected by itself. Besides
    its P signs (float32, a model's size) it holds nothing. UsageError for dims < 1.
    """

    def __init__(self, parameters: int, dims: int = DEFAULT_DIMS, seed: int = 0) -> None:
        if dims < 1:
            raise UsageError(f"a projection to {dims} dimensions", fix=f"1 or more, such as {DEFAULT_DIMS}")
        self.parameters = parameters
        self.dims = min(dims, parameters)
        draws = generator("guda.projection/1", seed, parameters, self.dims)
        self.signs = torch.randint(0, 2, (parameters,), generator=draws).mul_(2).sub_(1).float()
        runs = -(-parameters // self.dims)
        self.shifts: list[int] = torch.randint(0, self.dims, (runs,), generator=draws).tolist()

    def __call__(self, parts: Sequence[Tensor]) -> Tensor:
        """See `Projection`."""
        columns = _columns(parts, self.parameters)
        self.signs = self.signs.to(columns[0].device)
        # A shifted run reaches past the end; the second half is folded onto the first at the close.
        sums = columns[0].new_zeros(len(columns[0]), 2 * self.dims)
        start = 0
        for part in columns:
            self._add(sums, part, start)
            start += part.shape[1]
        return sums[:, : self.dims] + sums[:, self.dims :]

    def _add(self, sums: Tensor, part: Tensor, start: int) -> None:
        """Add columns `start`... of the vectors, [k, n], run by run."""
        done = 0
        while done < part.shape[1]:
            run, offset = divmod(start + done, self.dims)
            n = min(self.dims - offset, part.shape[1] - done)
            at = self.shifts[run] + offset
            signs = self.signs[start + done : start + done + n]
            sums[:, at : at + n].addcmul_(part[:, done : done + n], signs)
            done += n


def _columns(parts: Sequence[Tensor], parameters: int) -> list[Tensor]:
    """`parts` as matrices [k, n]; ValueError unless their columns number `parameters`."""
    columns = [part.reshape(len(part), -1) for part in parts]
    found = sum(part.shape[1] for part in columns)
    if found != parameters:
        raise ValueError(f"vectors of {found} numbers for a projection of {parameters}")
    return columns
