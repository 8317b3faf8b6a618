"""From ELBO terms to the answer for one image: scores, intervals, verdicts, ranking. No torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from guda_cli.attribution import calibration as calibrations
from guda_cli.attribution import delta_elbo
from guda_cli.attribution.calibration import Calibration
from guda_cli.data.dataset import Mask
from guda_cli.data.queries import Query
from guda_cli.diffusion.grid import Grid
from guda_cli.diffusion.schedule import Array, Schedule
from guda_cli.diffusion.weighting import Weighting
from guda_cli.report.answers.content import GroupScore, QueryResult
from guda_cli.workflow.keys.removal import Removal

LEVEL = 0.05  # of a false "stands out" anywhere among an image's groups
STRANGE = 0.01  # of training images would be called unlike themselves


@dataclass(frozen=True, eq=False)
class Reading:
    """How terms are read: grid, schedule, weighting, and the sizes that match groups with their null."""

    grid: Grid
    schedule: Schedule
    weighting: Weighting
    sizes: Mapping[str, int]
    latent: bool = False
    """Whether the terms are those of a latent, which say nothing of the image's own bits."""

    @property
    def unit(self) -> str:
        """`nats` only for the ELBO itself, estimated without bias."""
        return unit_of(self.weighting, unbiased=self.grid.unbiased)


def unit_of(weighting: Weighting, *, unbiased: bool) -> str:
    """What scores are measured in: see `Reading.unit`."""
    return "nats" if weighting.is_elbo and unbiased else "weighted squared error"


def scores_of(
    reading: Reading, full: Array, groups: Mapping[Removal, Array]
) -> dict[Removal, delta_elbo.Estimate]:
    """The scores of groups from -ELBO terms [queries, draws, n] of the full and counterfactual models."""
    multiplier = reading.weighting.multiplier(reading.schedule)
    return {
        what: delta_elbo.delta_elbo(full, terms, reading.grid, multiplier) for what, terms in groups.items()
    }


def assemble(
    reading: Reading,
    queries: Sequence[Query],
    full: Array,
    groups: Mapping[Removal, Array],
    looks_like: Sequence[str | None],
    calibration: Calibration | None,
) -> list[QueryResult]:
    """One result a query from -ELBO terms [queries, draws, n] of the full and counterfactual models.

    `calibration` is of the same groups in the same order; without one there are no verdicts.
    """
    found = scores_of(reading, full, groups)
    elbo = delta_elbo.estimate(full, reading.grid, np.ones(reading.schedule.T + 1))
    judged = _judged(reading, full, found, calibration)
    out = []
    for i, query in enumerate(queries):
        entries = [_entry(what.name, one, i, judged, j) for j, (what, one) in enumerate(found.items())]
        entries.sort(key=lambda entry: (-entry.score, entry.group))
        own = (float(elbo.value[i]), float(elbo.se[i]))
        unlike = None if judged is None else bool(judged.unlike[i])
        out.append(_result(reading, query, tuple(entries), looks_like[i], own, unlike))
    return out


class _Judged(NamedTuple):
    """Of every query and group [Q, G]: z, p and whether it stands out; of every query: is it unlike [Q]."""

    z: Array
    p: Array
    stands_out: Mask
    unlike: Mask


def _judged(
    reading: Reading,
    full: Array,
    found: Mapping[Removal, delta_elbo.Estimate],
    calibration: Calibration | None,
) -> _Judged | None:
    if calibration is None:
        return None
    values = np.stack([one.value for one in found.values()], axis=1)
    p = calibration.p_values(values)
    profiles = calibrations.profiles(full, reading.grid, reading.schedule.elbo_weight)
    unlike = calibration.unlike(profiles) <= STRANGE
    return _Judged(calibration.z(values), p, (p <= LEVEL) & ~unlike[:, None], unlike)


def _entry(name: str, estimate: delta_elbo.Estimate, i: int, judged: _Judged | None, j: int) -> GroupScore:
    score, se, reach = (float(values[i]) for values in (estimate.value, estimate.se, estimate.reach))
    low, high = score - reach, score + reach
    if judged is None or not np.isfinite(judged.p[i, j]):
        return GroupScore(name, score, se, low, high)
    z, p = float(judged.z[i, j]), float(judged.p[i, j])
    return GroupScore(name, score, se, low, high, z, p, bool(judged.stands_out[i, j]))


def _result(
    reading: Reading,
    query: Query,
    entries: tuple[GroupScore, ...],
    looks: str | None,
    elbo: tuple[float, float],
    unlike: bool | None,
) -> QueryResult:
    judged = [entry for entry in entries if entry.stands_out is not None]
    answer = tuple(entry.group for entry in judged if entry.stands_out) if judged else None
    found = QueryResult(
        query.name, query.digest, looks, query.pixels, entries, answer,
        condition=query.condition, prompts=query.prompts, unlike=unlike,
    )  # fmt: skip
    if reading.unit != "nats" or reading.latent:  # the ELBO of a latent is not the image's
        return found
    dimensions = query.pixels.size
    x0 = query.pixels[None].astype(np.float64) / 127.5 - 1.0
    negative = (
        elbo[0] + float(reading.schedule.prior_term(x0)[0]) + reading.schedule.decoder_constant(dimensions)
    )
    bits = negative / (dimensions * math.log(2.0))
    return replace(found, elbo_nats=-negative, bits_per_dim=bits, elbo_se=elbo[1])
