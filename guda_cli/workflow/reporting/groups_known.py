"""The groups of a recipe's data, and what the store has of each. Runs no network and writes nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from guda_cli.console import Console
from guda_cli.data import known_sets
from guda_cli.data.sources import read_dataset
from guda_cli.data.sources.detect import MissingSourceError
from guda_cli.errors import MissingError
from guda_cli.report.answers.content import ReportModel, score_table
from guda_cli.report.group_rows import GroupRow
from guda_cli.sections import Recipe
from guda_cli.store import ActionRecord
from guda_cli.workflow.keys.operations import TRAIN, UNLEARN, model_blobs
from guda_cli.workflow.keys.removal import Removal
from guda_cli.workflow.project.counterfactual_kinds import GUDA, LOGO
from guda_cli.workflow.project.project import Project, reading_progress
from guda_cli.workflow.reporting import answers_report


@dataclass(frozen=True)
class Known:
    """Every group, how many images there are, and how many were scored."""

    rows: list[GroupRow]
    images: int
    scored: int = 0


def from_source(recipe: Recipe, console: Console) -> Known:
    """Groups and counts alone, of data that no store has."""
    try:
        with reading_progress(console, recipe.data) as progress:
            data = read_dataset(recipe.data, progress)
    except MissingSourceError as err:
        raise known_sets.remedied(err, recipe.name) from None
    held = data.held_out.counts() if data.held_out else {}
    return Known([GroupRow(name, n, held.get(name, 0)) for name, n in data.counts().items()], len(data))


def from_store(project: Project) -> Known:
    """With what was made of each group and how it scores by the recipe's settings."""
    if project.seen_data() is None:
        return from_source(project.recipe, project.console)
    data, held = project.data, project.held_out()
    out = held.counts() if held else {}
    rows = [GroupRow(name, n, out.get(name, 0)) for name, n in data.counts.items()]
    full = project.known_full()
    if full is None:
        return Known(rows, data.images)
    unlearned, retrained = _unlearned(project, full), _retrained(project, full)
    rows = [replace(row, **unlearned.get(row.group, {}), **retrained.get(row.group, {})) for row in rows]
    report = _report(project)
    if report is None:
        return Known(rows, data.images)
    scores = _scores(report)
    return Known(
        [replace(row, **scores.get(row.group, {})) for row in rows], data.images, len(report.queries)
    )


def _of_one_group(project: Project, operation: str) -> Iterator[tuple[str, ActionRecord]]:
    """Models that one group of the data was taken from, oldest first."""
    for record in project.store.records(operation):
        what = Removal.of(record.params.get("without"))
        if what is not None and len(what.groups) == 1 and what.groups[0] in project.data.counts:
            yield what.groups[0], record


def _unlearned(project: Project, full: ActionRecord) -> Mapping[str, dict[str, Any]]:
    """The model with the recipe's settings, else the last one of any."""
    wanted, weights = {}, full.outputs["weights"]
    for group in project.data.counts:
        wanted[group] = {
            GUDA.action(project, full, Removal((group,)), seed).key
            for seed in project.recipe.unlearn.seeds or (None,)
        }
    found: dict[str, dict[str, Any]] = {}
    for group, record in _of_one_group(project, UNLEARN):
        current = record.key in wanted[group]
        if model_blobs(record).get("weights") != weights or (
            found.get(group, {}).get("current") and not current
        ):
            continue
        check = project.model(record).check or {}
        found[group] = {
            "unlearned": record.params["unlearn"]["operator"], "current": current,
            "check": check.get("verdict"), "why": check.get("why"),
        }  # fmt: skip
    return found


def _retrained(project: Project, full: ActionRecord) -> Mapping[str, dict[str, Any]]:
    """How many models were trained without each group, whatever their seed."""
    found: dict[str, dict[str, Any]] = {}
    for group, record in _of_one_group(project, TRAIN):
        seed = project.model(record).seed
        if LOGO.action(project, full, Removal((group,)), seed).key == record.key:
            found[group] = {"retrained": found.get(group, {}).get("retrained", 0) + 1}
    return found


def _report(project: Project) -> ReportModel | None:
    try:
        return answers_report.build(project, GUDA.method, project.recipe.score.weighting)
    except MissingError:  # nothing was scored with these models and settings
        return None


def _scores(report: ReportModel) -> Mapping[str, dict[str, Any]]:
    table = score_table(report.queries, report.groups)
    judged, named = dict.fromkeys(report.groups, 0), dict.fromkeys(report.groups, 0)
    for entry in (entry for query in report.queries for entry in query.scores):
        judged[entry.group] += entry.stands_out is not None
        named[entry.group] += entry.stands_out is True
    means = {mean.group: mean for mean in report.mean_scores}
    return {
        group: {
            "score": means[group].mean, "se": means[group].se,
            "judged": judged[group] or None, "stands_out": named[group] if judged[group] else None,
        }
        for j, group in enumerate(report.groups) if np.isfinite(table[:, j]).any()
    }  # fmt: skip
