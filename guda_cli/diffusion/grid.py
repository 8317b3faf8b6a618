"""Which timesteps an ELBO is estimated at, and how much each one counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from guda_cli.diffusion.schedule import Array
from guda_cli.errors import UsageError


@dataclass(frozen=True, eq=False)
class Grid:
    """`timesteps` [draws, n] (1..T) and `widths` [n]: how many terms of the full sum each stands for.

    `unbiased` is False for partial sums (a fixed stride), whose totals are not nats of the whole bound.
    """

    timesteps: npt.NDArray[np.int64]
    widths: Array
    unbiased: bool
    spec: Mapping[str, Any]

    @property
    def rows(self) -> int:
        """Network forwards an image."""
        return int(self.timesteps.size)


def spec(kind: str, timesteps: int, draws: int, seed: int) -> dict[str, Any]:
    """The canonical description of a grid, as it enters a table's key.

    `kind` is `strata`, `all` or `stride:N`. Raises UsageError on another one.
    """
    name, _, stride = kind.removeprefix("grid:").partition(":")
    if name == "strata" and not stride:
        return {"kind": "strata", "timesteps": timesteps, "draws": draws, "seed": seed}
    if name == "all" and not stride:
        return {"kind": "all", "draws": draws, "seed": seed}
    if name == "stride" and stride.isdecimal() and int(stride) > 0:
        return {"kind": "stride", "stride": int(stride), "draws": draws, "seed": seed}
    raise UsageError(f"unknown grid '{kind}'", why="it is one of strata, all, stride:N", fix="--grid strata")


def build(grid_spec: Mapping[str, Any], T: int) -> Grid:
    """The grid of `spec` for a process of T steps.

    `strata`: 1..T cut into n runs; every draw takes its own seeded index in each, so the spread over
    draws covers the choice of timesteps as well as the noise. `stride:N` is every N-th index from N
    (diffusers' numbering), as in the paper's public code.
    """
    draws = int(grid_spec["draws"])
    if grid_spec["kind"] == "strata":
        n = min(int(grid_spec["timesteps"]), T)
        edges = np.rint(np.linspace(0, T, n + 1)).astype(np.int64)
        widths = np.diff(edges)
        rng = np.random.Generator(np.random.PCG64([0x6D1D, int(grid_spec["seed"])]))
        offsets = np.floor(rng.random((draws, n)) * widths).astype(np.int64)
        return Grid(edges[:-1] + 1 + offsets, widths.astype(np.float64), True, dict(grid_spec))
    if grid_spec["kind"] == "all":
        steps, unbiased = np.arange(1, T + 1), True
    else:
        stride = int(grid_spec["stride"])
        steps, unbiased = np.arange(stride, T, stride) + 1, False
        if not len(steps):
            raise UsageError(f"grid stride:{stride} leaves no timestep of T = {T}")
    return Grid(np.tile(steps, (draws, 1)), np.ones(len(steps)), unbiased, dict(grid_spec))
