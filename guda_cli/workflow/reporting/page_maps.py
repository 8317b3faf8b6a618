"""Maps of where in an image its highest groups matter, for a page. Runs the networks, and stores nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from guda_cli.data.queries import Query
from guda_cli.phrases import plural
from guda_cli.report.answers.content import Maps, QueryResult
from guda_cli.workflow.project.project import Project
from guda_cli.workflow.scoring.answers import Reading
from guda_cli.workflow.scoring.counterfactuals import Counterfactuals
from guda_cli.workflow.scoring.model_terms import ModelTerms


@dataclass(frozen=True)
class Request:
    """Maps of the first `images`, and the `top` groups of each."""

    images: int = 8
    top: int = 3
    device: str = "auto"


def build(
    project: Project,
    found: Counterfactuals,
    reading: Reading,
    queries: Sequence[Query],
    answers: Sequence[QueryResult],
    request: Request,
) -> Maps:
    """As `guda score --map` makes them, from the same noise; `answers` belong to `queries`, in order."""
    engine = ModelTerms(project, found, request.device, int(reading.grid.spec["seed"])).engine
    multiplier = reading.weighting.multiplier(reading.schedule)
    maps, forwards = {}, 0
    first = list(zip(queries, answers, strict=True))[: request.images]
    with project.console.progress("maps", len(first), unit="image") as bar:
        for query, answer in first:
            names = [entry.group for entry in answer.scores[: request.top]]
            models = {name: tuple(model.record for model in found.named(name)) for name in names}
            made = engine.maps(query, {"": (found.full,), **models}, reading.grid, multiplier)
            maps[query.digest] = tuple((name, made[name]) for name in names)
            forwards += reading.grid.rows * len(query.conditions) * (1 + sum(map(len, models.values())))
            bar.advance()
    project.console.say(f"maps of {plural(len(maps), 'image', 'images')}: {forwards:,} network forwards")
    return Maps(maps)
