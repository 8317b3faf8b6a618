"""From ELBO terms to the answer for one image: scores, intervals, null, ranking. No torch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from guda_cli.attribution import delta_elbo
from guda_cli.data.queries import Query
from guda_cli.diffusion.grid import Grid
from guda_cli.diffusion.schedule import Array, Schedule
from guda_cli.diffusion.weighting import Weighting
from guda_cli.report.answers.content import GroupScore, QueryResult
from guda_cli.workflow.keys.removal import Removal, size_classes

LEVEL = 0.05  # of a false "stands out" anywhere among an image's groups


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


def assemble(
    reading: Reading,
    queries: Sequence[Query],
    full: Array,
    groups: Mapping[Removal, Array],
    nulls: Mapping[Removal, Array],
    looks_like: Sequence[str | None],
) -> list[QueryResult]:
    """One result a query from -ELBO terms [queries, draws, n] of the full and counterfactual models."""
    multiplier = reading.weighting.multiplier(reading.schedule)
    found = {
        what: delta_elbo.delta_elbo(full, terms, reading.grid, multiplier) for what, terms in groups.items()
    }
    null_values = {
        what: delta_elbo.delta_elbo(full, t, reading.grid, multiplier).value for what, t in nulls.items()
    }
    matched = _matched_nulls(groups, nulls, reading.sizes)
    elbo = delta_elbo.estimate(full, reading.grid, np.ones_like(multiplier))
    out = []
    for i, query in enumerate(queries):
        entries = []
        for what, estimate in found.items():
            null = delta_elbo.null_of(np.array([null_values[n][i] for n in matched[what]]))
            entries.append(_entry(what.name, estimate, i, null, len(found)))
        entries.sort(key=lambda entry: (-entry.score, entry.group))
        out.append(
            _result(reading, query, tuple(entries), looks_like[i], (float(elbo.value[i]), float(elbo.se[i])))
        )
    return out


def _entry(
    name: str, estimate: delta_elbo.Estimate, i: int, null: delta_elbo.Null | None, tested: int
) -> GroupScore:
    score, se, reach = (float(values[i]) for values in (estimate.value, estimate.se, estimate.reach))
    low, high = score - reach, score + reach
    if null is None:
        return GroupScore(name, score, se, low, high)
    z = null.z(score, se)
    p = null.p_value(z)
    return GroupScore(name, score, se, low, high, z, p, p * tested < LEVEL)


def _result(
    reading: Reading,
    query: Query,
    entries: tuple[GroupScore, ...],
    looks: str | None,
    elbo: tuple[float, float],
) -> QueryResult:
    judged = [entry for entry in entries if entry.stands_out is not None]
    answer = tuple(entry.group for entry in judged if entry.stands_out) if judged else None
    found = QueryResult(
        query.name, query.digest, looks, query.pixels, entries, answer,
        condition=query.condition, prompts=query.prompts,
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


def _matched_nulls(
    groups: Iterable[Removal], nulls: Iterable[Removal], sizes: Mapping[str, int]
) -> dict[Removal, list[Removal]]:
    """For each group the null models of its size class; for joint removals the nearest size there is."""
    by_size: dict[int, list[Removal]] = {}
    for null in nulls:
        by_size.setdefault(null.size, []).append(null)
    classes = size_classes(dict(sizes))
    out: dict[Removal, list[Removal]] = {}
    for what in groups:
        wanted = classes[what.groups[0]] if len(what.groups) == 1 else what.images(sizes)
        near = min(by_size, key=lambda size: abs(math.log(size / wanted)), default=None)
        close = near is not None and max(near, wanted) <= 1.5 * min(near, wanted)
        out[what] = by_size[near] if close and near is not None else []
    return out
