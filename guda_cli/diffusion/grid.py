"""Which timesteps an ELBO is estimated at, and how much each one counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from guda_cli import memory, typed_number
from guda_cli.diffusion.schedule import Array
from guda_cli.errors import UsageError

STRATA, EVEN, ALL, STRIDE = "strata", "strata:even", "all", "stride"
MIRRORED = "mirrored"  # of races: few timesteps a draw, each with a noise and its mirror
HELP = "strata, strata:even, all or stride:N"


@dataclass(frozen=True, eq=False)
class Grid:
    """`timesteps` [draws, n] (1..T) and `widths` ([n], [draws, n]): how many terms of the sum each is for.

    `unbiased` is False for partial sums (a fixed stride), whose totals are not nats of the whole bound.
    `numbers` [draws, n] are those of the noises: no two cells of a grid have the same timestep and number.
    Where `mirrored`, the second of each two neighbours [2 j + 1] has the first's noise with its sign changed.
    """

    timesteps: npt.NDArray[np.int64]
    widths: Array
    unbiased: bool
    spec: Mapping[str, Any]
    numbers: npt.NDArray[np.int64]
    mirrored: bool = False

    @property
    def rows(self) -> int:
        """Network forwards an image."""
        return int(self.timesteps.size)

    @property
    def draws(self) -> int:
        """Noises a timestep."""
        return len(self.timesteps)

    def weighted(self, terms: Array, multiplier: Array) -> Array:
        """Terms [..., draws, n] times their widths and the `multiplier` [T + 1] of their timesteps.

        A noise and its mirror are one draw: of a mirrored grid [..., draws, n / 2], their sums.
        """
        out = terms * (multiplier[self.timesteps] * self.widths)
        return out[..., ::2] + out[..., 1::2] if self.mirrored else out


def needs_edges(kind: str) -> bool:
    """Whether a grid typed as `kind` has strata that follow the sizes of the terms (`strata.edges`)."""
    return kind.removeprefix("grid:") == STRATA


Layout = tuple[Sequence[int], Sequence[int]]
"""Edges of strata, and how often each is drawn from (`strata.edges`)."""


def spec(kind: str, timesteps: int, draws: int, seed: int, layout: Layout | None = None) -> dict[str, Any]:
    """The canonical description of a grid, as it enters a table's key.

    `kind` is one of HELP; `layout` is that of `strata`, which then stands in the key. Raises UsageError on
    another kind.
    """
    name, _, rest = kind.removeprefix("grid:").partition(":")
    if needs_edges(kind) and layout:
        edges, repeats = ([int(value) for value in values] for values in layout)
        found = {"kind": STRATA, "edges": edges, "draws": draws, "seed": seed}
        return found | ({"repeats": repeats} if max(repeats) > 1 else {})
    if name == STRATA and rest in ("", "even"):
        return {"kind": STRATA, "timesteps": timesteps, "draws": draws, "seed": seed}
    if name == ALL and not rest:
        return {"kind": ALL, "draws": draws, "seed": seed}
    if name == STRIDE and (stride := typed_number.whole(rest)):
        return {"kind": STRIDE, "stride": stride, "draws": draws, "seed": seed}
    raise UsageError(f"unknown grid '{kind}'", why=f"it is one of {HELP}", fix="--grid strata")


def mirrored_spec(layout: Layout, timesteps: int, draws: int, seed: int) -> dict[str, Any]:
    """The description of a grid of `timesteps` a draw that are drawn as often as the strata of `layout`."""
    return spec(STRATA, timesteps, draws, seed, layout) | {"kind": MIRRORED, "timesteps": timesteps}


def name_of(grid_spec: Mapping[str, Any]) -> str:
    """How the grid of a description is typed."""
    kind = str(grid_spec["kind"])
    if kind == STRATA and "edges" not in grid_spec:
        return EVEN
    return f"{STRIDE}:{grid_spec['stride']}" if kind == STRIDE else kind


def typed(grid_spec: Mapping[str, Any], name: str) -> bool:
    """Whether the grid of a description is the one typed as `name`; any is where nothing is typed."""
    return not name or name_of(grid_spec) == name.removeprefix("grid:")


def build(grid_spec: Mapping[str, Any], T: int) -> Grid:
    """The grid of `spec` for a process of T steps.

    `strata`: 1..T cut into runs, at `edges` where there are some, else into n of even length; every draw
    takes its own seeded index in each, so the spread over draws covers the choice of timesteps as well as
    the noise. Draws come one after the other: a grid of more draws begins with those of fewer. `stride:N` is
    every N-th index from N (diffusers' numbering), as in the paper's public code.
    """
    draws, first = int(grid_spec["draws"]), int(grid_spec.get("first", 0))
    _check_room(grid_spec, first + draws, T)
    if grid_spec["kind"] == STRATA:
        starts, widths, copies = _strata(grid_spec, T)
        rng = np.random.Generator(np.random.PCG64([0x6D1D, int(grid_spec["seed"])]))
        offsets = np.floor(rng.random((first + draws, len(widths)))[first:] * widths).astype(np.int64)
        numbers = (first + np.arange(draws))[:, None] * copies[1] + copies[0]
        return Grid(starts + 1 + offsets, widths / copies[1], True, dict(grid_spec), numbers)
    if grid_spec["kind"] == MIRRORED:
        return _mirrored(grid_spec, T, first, draws)
    if grid_spec["kind"] == ALL:
        steps, unbiased = np.arange(1, T + 1), True
    else:
        stride = int(grid_spec["stride"])
        steps, unbiased = np.arange(stride, T, stride) + 1, False
        if not len(steps):
            raise UsageError(f"grid stride:{stride} leaves no timestep of T = {T}")
    return every(steps, draws, dict(grid_spec), unbiased=unbiased)


def _check_room(grid_spec: Mapping[str, Any], draws: int, T: int) -> None:
    """UsageError where the places of the grid alone need more memory than there is."""
    kind = grid_spec["kind"]
    steps = T // int(grid_spec["stride"]) if kind == STRIDE else T
    if kind == MIRRORED:
        steps = 2 * int(grid_spec["timesteps"])
    elif kind == STRATA:
        known = int(sum(grid_spec.get("repeats") or [1] * (len(grid_spec.get("edges", ())) - 1)))
        steps = known if "edges" in grid_spec else min(int(grid_spec["timesteps"]), T)
    what = f"{draws:,} draws at {steps:,} timesteps"
    memory.check(_PLACE * draws * steps, what, fix=f"--draws {_FEW}")


_PLACE = 24  # bytes: a timestep, its number and what it is worked out of
_FEW = 16


def every(steps: npt.NDArray[np.int64], draws: int, grid_spec: Mapping[str, Any], *, unbiased: bool) -> Grid:
    """The same timesteps [n] in each of `draws` draws, each standing for itself."""
    numbers = np.repeat(np.arange(draws)[:, None], len(steps), axis=1)
    return Grid(np.tile(steps, (draws, 1)), np.ones(len(steps)), unbiased, grid_spec, numbers)


Whole = npt.NDArray[np.int64]


def _mirrored(grid_spec: Mapping[str, Any], T: int, first: int, draws: int) -> Grid:
    """Timesteps by importance: each stratum of the layout, as wide as its terms are small, is equally likely.

    The n of a draw are one each from n equal parts of that probability, weighted back by it, so the sum is
    unbiased (Owen 2013, Monte Carlo theory, methods and examples, chapters 8 and 9). Each is drawn with a
    noise and with its mirror: what is odd in the noise cancels.
    """
    before, length, (_, copies) = _strata(grid_spec, T)
    n, strata = int(grid_spec["timesteps"]), len(length)
    rng = np.random.Generator(np.random.PCG64([0x6D1E, int(grid_spec["seed"])]))
    place = (np.arange(n) + rng.random((first + draws, n))[first:]) * (strata / n)
    which = np.minimum(place.astype(np.int64), strata - 1)
    inside = np.minimum(((place - which) * length[which]).astype(np.int64), length[which] - 1)
    timesteps = np.repeat(before[which] + 1 + inside, 2, axis=1)
    widths = np.repeat((length / copies)[which] * (strata / (2.0 * n)), 2, axis=1)
    numbers = np.repeat((first + np.arange(draws))[:, None] * n + np.arange(n), 2, axis=1)
    numbers[:, 1::2] = -1 - numbers[:, 1::2]
    return Grid(timesteps, widths, True, dict(grid_spec), numbers, mirrored=True)


def _strata(grid_spec: Mapping[str, Any], T: int) -> tuple[Whole, Whole, tuple[Whole, Whole]]:
    """What lies before each stratum, how many timesteps it has, and which copy it is of how many, all [n]."""
    if "edges" not in grid_spec:
        n = min(int(grid_spec["timesteps"]), T)
        edges, repeats = np.rint(np.linspace(0, T, n + 1)).astype(np.int64), np.ones(n, dtype=np.int64)
    else:
        edges = np.asarray(grid_spec["edges"], dtype=np.int64)
        repeats = np.asarray(grid_spec.get("repeats", [1] * (len(edges) - 1)), dtype=np.int64)
    before, length, copies = (np.repeat(part, repeats) for part in (edges[:-1], np.diff(edges), repeats))
    return before, length, (np.concatenate([np.arange(times) for times in repeats]), copies)


def with_draws(grid_spec: Mapping[str, Any], draws: int, first: int = 0) -> dict[str, Any]:
    """The same grid with other draws."""
    found = {name: value for name, value in grid_spec.items() if name != "first"}
    return found | {"draws": draws} | ({"first": first} if first else {})


def layers(grid_spec: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Parts of a grid that are stored apart, so that more draws cost no more than what they add.

    The first holds one or two draws; every other as many as those before it, or what is left.
    """
    draws = int(grid_spec["draws"])
    if "edges" not in grid_spec:  # as 0.1.0 stored it
        return [dict(grid_spec)]
    out, first, size = [], 0, min(draws, 2)
    while first < draws:
        size = min(size, draws - first)
        out.append(with_draws(grid_spec, size, first))
        first += size
        size = first
    return out
