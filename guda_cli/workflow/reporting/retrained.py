"""What the store's retrained models teach of retraining (`attribution.retraining`). Runs no network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from guda_cli.attribution.retraining import LEAST_GROUPS, LEAST_IMAGES, Retraining, fit
from guda_cli.data.queries import Query
from guda_cli.errors import MissingError
from guda_cli.report.answers.content import QueryResult
from guda_cli.workflow.project.counterfactual_kinds import GUDA, LOGO
from guda_cli.workflow.project.project import Project
from guda_cli.workflow.scoring import answers, counterfactuals
from guda_cli.workflow.scoring.counterfactuals import Counterfactuals
from guda_cli.workflow.scoring.elbo_tables import Tables
from guda_cli.workflow.scoring.refining import Scores


def known(
    project: Project,
    found: Counterfactuals,
    reading: answers.Reading,
    last: Mapping[str, Any],
    queries: Sequence[Query],
    scores: Scores,
) -> Retraining | None:
    """The line from scores of unlearned models to the oracle's; None where too little was retrained.

    `scores` are of `queries` and of the groups of `found`, read from tables as `last` says.
    """
    if found.kind is not GUDA:
        return None
    try:
        oracle = counterfactuals.find(project, LOGO.method)
    except MissingError:
        return None
    groups = list(found.groups)
    common = [j for j, what in enumerate(groups) if what in oracle.groups]
    tables = Tables(project, oracle.records(), last["grid"], last["compute"], reading.schedule.T)
    there = tables.complete([query.digest for query in queries])
    rows = [i for i, query in enumerate(queries) if query.digest in there]
    if len(common) < LEAST_GROUPS or len(rows) < LEAST_IMAGES:
        return None
    cells = tables.stored([queries[i] for i in rows])
    if cells is None:
        return None
    seeds = []
    for s in range(len(oracle.groups[groups[common[0]]])):
        labels = [oracle.groups[groups[j]][s].label for j in common]
        seeds.append(
            np.stack([answers.score_of(reading, cells[""], cells[label]).value for label in labels], axis=1)
        )
    return fit(scores.value[np.ix_(rows, common)], seeds)


def foretold(results: Sequence[QueryResult], line: Retraining | None) -> tuple[QueryResult, ...]:
    """The results with what retraining would say of each group."""
    if line is None:
        return tuple(results)
    out = []
    for result in results:
        parts = [values.tolist() for values in line.interval(np.array([one.score for one in result.scores]))]
        entries = tuple(
            replace(entry, retrained=middle, retrained_low=low, retrained_high=high)
            for entry, middle, low, high in zip(result.scores, *parts, strict=True)
        )
        out.append(replace(result, scores=entries))
    return tuple(out)
