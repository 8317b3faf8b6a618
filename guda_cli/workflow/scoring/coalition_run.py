"""`guda score --shares`: what each of several groups contributes, from unlearned coalitions of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

import numpy as np

from guda_cli.attribution import delta_elbo, shares
from guda_cli.data.queries import Query
from guda_cli.diffusion.schedule import Array
from guda_cli.errors import MissingError, UsageError
from guda_cli.report.share_tables import GroupShare, ImageShares, PairExcess
from guda_cli.workflow.keys import coalitions
from guda_cli.workflow.keys.removal import Removal
from guda_cli.workflow.project.counterfactual_kinds import GUDA
from guda_cli.workflow.project.project import Project
from guda_cli.workflow.scoring.counterfactual_run import ScoreRun, Settings


class CoalitionRun:
    """Shares among `settings.groups` of images; the scores of the coalitions are a `ScoreRun`'s.

    Exact where the store has every coalition's model and there are few; else from as many of the recipe's
    permutations (drawn by `unlearn.seed`) as it has, in order. MissingError where there are fewer than two.
    """

    def __init__(self, project: Project, settings: Settings, device: str) -> None:
        counts = project.data.counts
        self.players = coalitions.check_players(settings.groups, counts)
        self.orders = self._orders(project)
        self.removals = (
            coalitions.beginnings(self.players, self.orders)
            if self.orders
            else coalitions.every(self.players)
        )
        names = tuple(what.typed for what in self.removals)
        self.run = ScoreRun(project, dataclasses.replace(settings, groups=names), device, remember=False)
        if [*self.run.found.groups] != self.removals:
            raise UsageError("a group's name is that of several others with + between them")

    def _orders(self, project: Project) -> list[tuple[int, ...]]:
        """The permutations sampled; none where every coalition is to be had."""
        full = project.require_full()

        def there(what: Removal) -> bool:
            return project.store.lookup(GUDA.action(project, full, what, None).key) is not None

        if len(self.players) <= coalitions.EXACT:
            lacking = [what for what in coalitions.every(self.players) if not there(what)]
            if lacking:
                raise self._missing(f"{len(lacking)} coalitions have no unlearned model")
            return []
        known: dict[Removal, bool] = {}
        out: list[tuple[int, ...]] = []
        for order in coalitions.permutations(len(self.players), coalitions.MOST, project.recipe.unlearn.seed):
            for what in coalitions.beginnings(self.players, [order]):
                known.setdefault(what, there(what))
            if not all(known[what] for what in coalitions.beginnings(self.players, [order])):
                break
            out.append(order)
        if len(out) < 2:
            raise self._missing("fewer than two permutations of the groups have all their models")
        return out

    def _missing(self, what: str) -> MissingError:
        return MissingError(what, fix=f"{GUDA.command(self.players)} --coalitions 8")

    def results(self, paths: Sequence[str]) -> Iterator[tuple[list[ImageShares], list[tuple[str, str]]]]:
        """Shares of each block of images, and (path, reason) of those that could not be read."""
        for block in self.run.blocks(paths):
            yield self._shares(block.queries) if block.queries else [], block.bad

    def _shares(self, queries: list[Query]) -> list[ImageShares]:
        cells = self.run.terms(queries)
        full = cells[""]
        lost = {what: cells[models[0].label] - full for what, models in self.run.found.groups.items()}
        alone = [self._estimate(lost[coalitions.joint(self.players, (i,))]) for i in range(len(self.players))]
        total = self._estimate(lost[coalitions.joint(self.players, range(len(self.players)))])
        shapley, banzhaf = self._sampled(lost) if self.orders else self._exact(lost)
        pairs = self._pairs(lost)
        return [
            ImageShares(
                query.name,
                query.digest,
                float(total.value[q]),
                float(total.se[q]),
                len(self.orders),
                tuple(
                    GroupShare(
                        name,
                        float(alone[i].value[q]),
                        float(alone[i].se[q]),
                        *(float(part[i, q]) for part in (*shapley, *banzhaf)),
                    )
                    for i, name in enumerate(self.players)
                ),
                tuple(
                    PairExcess(names, float(found.value[q]), float(found.se[q]))
                    for names, found in pairs.items()
                ),
            )
            for q, query in enumerate(queries)
        ]

    def _estimate(self, terms: Array) -> delta_elbo.Estimate:
        reading = self.run.reading
        return delta_elbo.estimate(terms, reading.grid, reading.weighting.multiplier(reading.schedule))

    def _exact(self, lost: Mapping[Removal, Array]) -> tuple[shares.Shares, shares.Shares]:
        """Shares of the terms themselves, so that their errors are those of paired differences."""
        first = next(iter(lost.values()))
        values = np.zeros((1 << len(self.players), *first.shape))
        for number in range(1, len(values)):
            members = [i for i in range(len(self.players)) if number >> i & 1]
            values[number] = lost[coalitions.joint(self.players, members)]
        return self._summed(shares.shapley(values)), self._summed(shares.banzhaf(values))

    def _summed(self, terms: Array) -> shares.Shares:
        found = [self._estimate(of_player) for of_player in terms]
        return shares.Shares(np.stack([f.value for f in found]), np.stack([f.se for f in found]))

    def _sampled(self, lost: Mapping[Removal, Array]) -> tuple[shares.Shares, shares.Shares]:
        values = {what: self._estimate(terms).value for what, terms in lost.items()}

        def value(members: shares.Coalition) -> Array:
            return values[coalitions.joint(self.players, members)]

        return shares.sampled_shapley(self.orders, value), shares.sampled_banzhaf(self.orders, value)

    def _pairs(self, lost: Mapping[Removal, Array]) -> dict[tuple[str, str], delta_elbo.Estimate]:
        """The excess of every pair whose joint removal is among the coalitions."""
        out = {}
        for one, other in combinations(self.players, 2):
            both = lost.get(Removal((one, other)))
            if both is not None:
                terms = shares.excess(both, lost[Removal((one,))], lost[Removal((other,))])
                out[one, other] = self._estimate(terms)
        return out
