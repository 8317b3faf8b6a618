"""From ELBO terms to the answer for one image: scores, intervals, verdicts, ranking. No torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from guda_cli.attribution import delta_elbo
from guda_cli.attribution.calibration import Calibration
from guda_cli.data.dataset import Mask
from guda_cli.data.queries import Query
from guda_cli.diffusion.grid import Grid
from guda_cli.diffusion.schedule import Array, Schedule
from guda_cli.diffusion.weighting import Weighting
from guda_cli.report.answers.content import GroupScore, QueryResult
from guda_cli.workflow.keys.removal import Removal
from guda_cli.workflow.scoring.counterfactuals import Counterfactuals
from guda_cli.workflow.scoring.ranking import Ranking
from guda_cli.workflow.scoring.refining import Scores

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


@dataclass(frozen=True, eq=False)
class Judge:
    """What verdicts go by: what groups score on others' images, and which queries [Q] are unlike them.

    Of queries that are not `known` [Q] this cannot be said, so they get no verdict.
    """

    calibration: Calibration
    strange: Mask
    known: Mask


def unit_of(weighting: Weighting, *, unbiased: bool) -> str:
    """What scores are measured in: see `Reading.unit`."""
    return "nats" if weighting.is_elbo and unbiased else "weighted squared error"


def scores_of(
    reading: Reading, full: Array, groups: Mapping[Removal, Array]
) -> dict[Removal, delta_elbo.Estimate]:
    """The scores of groups from -ELBO terms [queries, draws, n] of the full and counterfactual models."""
    return {what: score_of(reading, full, terms) for what, terms in groups.items()}


def first_scores(reading: Reading, cells: Mapping[str, Array], found: Counterfactuals) -> Scores:
    """The scores of all groups from terms [queries, draws, n] by the models' labels, "" is the full one's."""
    estimates = scores_of(reading, cells[""], found.mean(cells))
    scores = Scores.of(list(estimates.values()), reading.grid.draws)
    return replace(scores, spread=between_seeds(reading, cells, found), seeds=max(1, len(found.seeds)))


def between_seeds(reading: Reading, cells: Mapping[str, Array], found: Counterfactuals) -> Array | None:
    """Deviation [Q, G] between the scores of models of several seeds; None where each has one.

    `cells` are terms [queries, draws, n] by the models' labels, the full model's by "".
    """
    if len(found.seeds) < 2:
        return None
    full, out = cells[""], []
    for models in found.groups.values():
        values = [score_of(reading, full, cells[model.label]).value for model in models]
        out.append(np.std(values, axis=0, ddof=1))
    return np.stack(out, axis=1)


def score_of(reading: Reading, full: Array, without: Array) -> delta_elbo.Estimate:
    """The score of one group from terms [queries, draws, n] of the full model and of the one without it."""
    multiplier = reading.weighting.multiplier(reading.schedule)
    return delta_elbo.delta_elbo(full, without, reading.grid, multiplier)


def assemble(
    reading: Reading,
    queries: Sequence[Query],
    full: Array,
    groups: Sequence[Removal],
    scores: Scores,
    looks_like: Sequence[str | None],
    judge: Judge | None,
    ranking: Ranking,
) -> list[QueryResult]:
    """One result a query from its scores of the groups.

    `full` are the full model's -ELBO terms [queries, draws, n]. The judge's calibration is of the same groups
    in the same order; without one there are no verdicts. `ranking` says by what the groups are put in order.
    """
    ranked = ranking.values(scores, judge.calibration if judge else None)
    elbo = delta_elbo.estimate(full, reading.grid, np.ones(reading.schedule.T + 1))
    judged = None if judge is None else _judged(scores, judge)
    reach, sure = scores.reach, ranked.first_is_first
    order = np.nan_to_num(ranked.value, nan=-np.inf)
    out = []
    for i, query in enumerate(queries):
        highest = sorted(range(len(groups)), key=lambda j: (-order[i, j], groups[j].name))
        entries = [_entry(groups[j].name, scores, reach, judged, i, j) for j in highest]
        found = _result(query, tuple(entries), looks_like[i])
        unlike = bool(judge.strange[i]) if judge is not None and judge.known[i] else None
        confidence = float(sure[i]) if len(entries) > 1 and np.isfinite(sure[i]) else None
        found = replace(found, unlike=unlike, confidence=confidence)
        out.append(_with_elbo(reading, found, float(elbo.value[i]), float(elbo.se[i])))
    return out


class _Judged(NamedTuple):
    """Of every query and group [Q, G]: z, p and whether it stands out; of which queries that is known [Q]."""

    z: Array
    p: Array
    stands_out: Mask
    known: Mask


def _judged(scores: Scores, judge: Judge) -> _Judged:
    p = judge.calibration.p_values(scores.value)
    named: Mask = (p <= LEVEL) & ~judge.strange[:, None]
    return _Judged(judge.calibration.z(scores.value), p, named, judge.known)


def _entry(name: str, scores: Scores, reach: Array, judged: _Judged | None, i: int, j: int) -> GroupScore:
    score, se = float(scores.value[i, j]), float(scores.se[i, j])
    low, high = score - float(reach[i, j]), score + float(reach[i, j])
    spread = None if scores.spread is None else float(scores.spread[i, j])
    found = GroupScore(name, score, se, low, high, draws=int(scores.draws[i, j]), spread=spread)
    if judged is None or not np.isfinite(judged.p[i, j]):
        return found
    z, p = float(judged.z[i, j]), float(judged.p[i, j])
    return replace(found, z=z, p=p, stands_out=bool(judged.stands_out[i, j]) if judged.known[i] else None)


def _result(query: Query, entries: tuple[GroupScore, ...], looks: str | None) -> QueryResult:
    judged = [entry for entry in entries if entry.stands_out is not None]
    answer = tuple(entry.group for entry in judged if entry.stands_out) if judged else None
    return QueryResult(
        query.spelled, query.digest, looks, query.pixels, entries, answer,
        condition=query.condition, prompts=query.prompts,
    )  # fmt: skip


def _with_elbo(reading: Reading, found: QueryResult, terms: float, se: float) -> QueryResult:
    """With the image's own ELBO, where the terms' sum is that: of a latent it is not the image's."""
    if reading.unit != "nats" or reading.latent or found.pixels is None:
        return found
    dimensions = found.pixels.size
    x0 = found.pixels[None].astype(np.float64) / 127.5 - 1.0
    negative = (
        terms + float(reading.schedule.prior_term(x0)[0]) + reading.schedule.decoder_constant(dimensions)
    )
    # of the 256 levels, as the literature has it: a level is 2 / 255 of the scale that the density is of
    bits = negative / (dimensions * math.log(2.0)) + math.log2(127.5)
    return replace(found, elbo_nats=-negative, bits_per_dim=bits, elbo_se=se)
