"""A rival method's answers: the groups ranked for each image, and the training images themselves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from guda_cli.attribution import aggregate
from guda_cli.data.queries import Query
from guda_cli.diffusion.schedule import Array
from guda_cli.report.answers.content import GroupScore, InstanceScore, QueryResult
from guda_cli.workflow.scoring.pool import Pool


def answer(
    query: Query, scores: Array, names: Sequence[str], looks: str | None, instances: tuple[InstanceScore, ...]
) -> QueryResult:
    """One image's groups `names` by their scores [len(names)], highest first; ties by name."""
    ranked = sorted(zip(names, scores.tolist(), strict=True), key=lambda item: (-item[1], item[0]))
    entries = tuple(GroupScore(name, score) for name, score in ranked)
    return QueryResult(
        query.spelled, query.digest, looks, query.pixels, entries, None,
        condition=query.condition, prompts=query.prompts, instances=instances,
    )  # fmt: skip


def by_prompt(
    scores: Callable[[list[Query]], tuple[Array, float]], queries: Sequence[Query]
) -> tuple[Array, float]:
    """Scores [len(queries), N] and their cost: of a query with several prompts the mean of each one's."""
    each = [replace(query, prompts=(text,)) for query in queries for text in query.prompts]
    if len(each) <= len(queries):  # none has several
        return scores(list(queries))
    found, cost = scores(each)
    ends = np.cumsum([len(query.prompts) for query in queries])
    return np.stack([part.mean(axis=0) for part in np.split(found, ends[:-1])]), cost


def best_instances(pool: Pool, row: Array, count: int) -> tuple[InstanceScore, ...]:
    """The `count` training images of the highest scores in `row` [len(pool.indices)], highest first."""
    data, out = pool.data, []
    for place in aggregate.top_instances(row[None], count)[0]:
        i = int(pool.indices[place])
        groups = tuple(g for g, member in zip(data.groups, data.membership[i], strict=True) if member)
        out.append(InstanceScore(data.names[i], groups, float(row[place]), data.images[i]))
    return tuple(out)
