"""Strata of timesteps as wide as their terms are small (Neyman 1934), those at the ends alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from guda_cli.diffusion.schedule import Array, Schedule

CLIPPED = 0.999  # where schedules that end in pure noise cut their betas (Nichol & Dhariwal 2021)
PROBES = 64


EVENLY = 0.2  # of the strata that are laid out `by_size`
REPEATED = 0.16  # of the strata are for each clipped beta: under the ELBO it outweighs all others together


def clipped(schedule: Schedule, t: int) -> bool:
    """Whether the beta of timestep t is one that was cut off."""
    return bool(schedule.betas[t - 1] >= CLIPPED)


def single(schedule: Schedule) -> list[int]:
    """Timesteps whose weight is unlike their neighbours': t = 1, t = T and every clipped beta, in order.

    t = 1 is the decoder's term. A clipped beta makes the ELBO's weight hundreds of times its neighbours'.
    """
    return sorted({1, schedule.T, *(t for t in range(1, schedule.T) if clipped(schedule, t))})


def probes(schedule: Schedule, most: int = PROBES) -> npt.NDArray[np.int64]:
    """At most about `most` timesteps [n] to learn sizes at: the single ones, and others densest at the ends.

    The sizes of terms change fastest where t is small, and near T.
    """
    T, alone = schedule.T, single(schedule)
    if most >= T:
        return np.arange(1, T + 1)
    angle = np.linspace(0.0, np.pi, most)
    inner = np.rint(1 + (T - 1) * (1.0 - np.cos(angle)) / 2.0).astype(np.int64)
    return np.unique(np.concatenate([inner, alone]))


def between(schedule: Schedule, at: npt.NDArray[np.int64], values: Array) -> Array:
    """Sizes [T + 1] of all terms from those [n] at `at`: the unweighted error is interpolated in log.

    `values` are root mean squares of the unweighted squared error. t = 0 has none.
    """
    grid = np.arange(1, schedule.T + 1)
    tiny = np.finfo(np.float64).tiny
    logs = np.interp(np.log(grid), np.log(at), np.log(np.maximum(values, tiny)))
    return np.concatenate([[0.0], np.exp(logs)])


def edges(schedule: Schedule, sizes: Sequence[tuple[float, Array]], n: int) -> tuple[list[int], list[int]]:
    """Strata for terms of these sizes: edges 0 = e_0 < ... < e_m = T, and how often each is drawn from.

    Stratum i is (e_{i-1}, e_i]; drawn from r times it counts as r of the n. Each of `sizes` is a part of the
    strata and the sizes [T + 1] of the terms under one weighting, which they are laid out for; what is
    left of 1 is spread evenly. `single` timesteps are strata of their own, where there are three strata or
    more for each; of them the clipped ones are drawn from repeatedly, each time with another noise. With one
    draw a stratum, the variance is smallest where each has the same part of the size (Neyman 1934; Cochran
    1977, 5.5).
    """
    T, alone = schedule.T, single(schedule)
    if n >= T:
        return list(range(T + 1)), [1] * T
    if 3 * len(alone) > n:
        alone = []
    times = {t: max(1, round(REPEATED * n)) if clipped(schedule, t) else 1 for t in alone}
    return _laid_out(T, _density(sizes, T, alone), times, n)


def by_size(schedule: Schedule, size: Array, n: int) -> tuple[list[int], list[int]]:
    """Edges and repeats as `edges`, for one weighting's terms of `size` [T + 1] alone.

    EVENLY is the share of the strata that is spread evenly, so that none is left out. A timestep whose term
    is as large as several strata stands alone and is drawn from as often.
    """
    T = schedule.T
    if n >= T:
        return list(range(T + 1)), [1] * T
    density = _density([(1.0 - EVENLY, size)], T, [])
    share = np.rint(density * n)
    times = {int(t): int(share[t]) for t in np.flatnonzero(share > 1)}
    density[list(times)] = 0.0
    return _laid_out(T, density, times, n)


def _laid_out(T: int, density: Array, times: Mapping[int, int], n: int) -> tuple[list[int], list[int]]:
    """Edges and repeats of `n` strata: the timesteps of `times` alone, the others by the density [T + 1]."""
    alone = sorted(times)
    runs = list(pairwise(sorted({0, T} | {t - 1 for t in alone} | set(alone))))
    free = [run for run in runs if run[1] not in times]
    parts = dict(zip(free, _shared(free, density, n - sum(times.values())), strict=True))
    out, repeats = [0], []
    for run in runs:
        inner = _cut(*run, density, parts[run]) if run in parts else []
        out += [*inner, run[1]]
        repeats += [times[run[1]]] if run[1] in times else [1] * parts[run]
    return out, repeats


def _density(sizes: Sequence[tuple[float, Array]], T: int, alone: Sequence[int]) -> Array:
    """How the strata are shared out over t = 0..T, of sum 1; nothing for those that stand alone."""
    free = np.ones(T + 1)
    free[[0, *alone]] = 0.0
    even = free / free.sum()
    out = (1.0 - sum(part for part, _ in sizes)) * even
    for part, size in sizes:
        mass = np.where(np.isfinite(size), size, 0.0) * free
        out += part * (mass / mass.sum() if mass.sum() > 0 else even)
    return np.asarray(out)


def _shared(runs: Sequence[tuple[int, int]], density: Array, strata: int) -> list[int]:
    """How many of `strata` each run gets: one at least, at most its length, by its share of the density."""
    parts = [1] * len(runs)
    room = [high - low for low, high in runs]
    mass = [float(density[low + 1 : high + 1].sum()) for low, high in runs]
    for _ in range(strata - len(runs)):
        open_ = [i for i in range(len(runs)) if parts[i] < room[i]]
        if not open_:
            break
        parts[max(open_, key=lambda i: mass[i] / parts[i])] += 1
    return parts


def _cut(low: int, high: int, density: Array, parts: int) -> list[int]:
    """Inner edges that cut (low, high] into `parts` runs of one timestep or more and of about equal mass."""
    total = np.cumsum(density[low + 1 : high + 1])
    out: list[int] = []
    for i in range(1, parts):
        least, most = (out[-1] if out else low) + 1, high - (parts - i)
        before = low + int(np.searchsorted(total, total[-1] * i / parts)) + 1
        out.append(min(max(before, least), most))
    return out
