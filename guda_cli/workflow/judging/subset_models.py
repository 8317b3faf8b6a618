"""The models trained without random halves of the groups, as a bench sees them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from guda_cli.attribution.linear_datamodel import datamodel_scores
from guda_cli.data.dataset import Mask
from guda_cli.diffusion.schedule import Array
from guda_cli.errors import MissingError
from guda_cli.phrases import plural
from guda_cli.workflow.judging.bench import Bench
from guda_cli.workflow.project.counterfactual_kinds import SUBSETS
from guda_cli.workflow.scoring import counterfactuals
from guda_cli.workflow.scoring.counterfactuals import Counterfactuals

LEAST = 3
"""Fewer removals cannot be ranked to any purpose."""


@dataclass(eq=False)
class SubsetModels:
    """What sums of scores are judged by: each removal's groups among the bench's, and its models."""

    bench: Bench
    found: Counterfactuals
    removed: Mask
    """[removals, groups]: which of the bench's columns a removal takes away."""
    _measured: dict[str, Array] = field(default_factory=dict)

    def measured(self, weighting: str) -> Array:
        """ELBO(full) - ELBO(model without the removal), mean over the seeds: [queries, removals]."""
        if weighting not in self._measured:
            of_seeds = [
                self.bench.scores([models[s].record for models in self.found.groups.values()], weighting)
                for s in range(len(self.found.seeds))
            ]
            self._measured[weighting] = np.asarray(np.mean(of_seeds, axis=0))
        return self._measured[weighting]

    def judged(self, scores: Array, weighting: str) -> Array:
        """The linear datamodeling score of `scores` [queries, groups], of each query: [queries]."""
        return datamodel_scores(scores, self.removed, self.measured(weighting))


def open_subsets(bench: Bench) -> tuple[SubsetModels | None, tuple[str, ...]]:
    """The subset models of a bench, or None; and a sentence on what they lack (none where none were trained).

    A joint group (`a+b`) is no part of a sum. Groups that are not judged count nothing in it.
    """
    try:
        found = counterfactuals.find(bench.project, SUBSETS.method)
    except MissingError:
        return None, ()
    if len(found.groups) < LEAST:
        return None, (f"There is no LDS, as there are models without {len(found.groups)} halves only.",)
    lacking = max(bench.lacking(model.record) for model in found.models())
    if lacking:
        images = plural(lacking, "image has", "images have")
        return None, (
            f"There is no LDS: {images} no terms under the models without random halves "
            f"(guda score IMAGES --method {SUBSETS.method}).",
        )
    removed = np.array(
        [
            [len(column.groups) == 1 and column.groups[0] in what.groups for column in bench.columns]
            for what in found.groups
        ]
    )
    return SubsetModels(bench, found, removed), _remarks(bench, found)


def _remarks(bench: Bench, found: Counterfactuals) -> tuple[str, ...]:
    seeds, out = ", ".join(map(str, found.seeds)), []
    out.append(
        f"LDS is over {len(found.groups)} random halves of the groups; their models have seed {seeds}."
        if len(found.seeds) == 1
        else f"LDS is over {len(found.groups)} random halves of the groups, the mean of seeds {seeds}."
    )
    single = {column.groups[0] for column in bench.columns if len(column.groups) == 1}
    without = sorted(set(bench.project.data.counts) - single)
    if without:
        out.append(f"The sums of LDS lack {', '.join(without)}, which lowers it for every method.")
    return tuple(out)
