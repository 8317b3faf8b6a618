"""Regeneration: does removing the groups a method names change a picture more than removing others does?

The counterfactual check of D-TRAK (Zheng et al. 2024), AbU (Wang et al. 2024) and MUCS (Serra et al. 2026),
on groups: an image is drawn from its own noise by the model without its highest groups, and by models without
as many others. Every picture is a stored action, as in the gallery.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from guda_cli.attribution.picture_changes import levels, paired, structure
from guda_cli.data.dataset import Pixels
from guda_cli.data.queries import Query
from guda_cli.diffusion.noise import seed_of
from guda_cli.errors import MissingError
from guda_cli.report.answers.content import Change, QueryResult, Regenerated, Regeneration
from guda_cli.store import ActionRecord
from guda_cli.workflow.project.project import Project
from guda_cli.workflow.reporting.gallery import Chooser, Plan, pictures
from guda_cli.workflow.scoring import counterfactuals
from guda_cli.workflow.scoring.counterfactuals import Counterfactuals

OTHERS = 4
"""Sets of other groups an image, drawn at random where there are more."""
Measure = Callable[[Pixels, Pixels], float]
Models = Mapping[frozenset[str], tuple[str, ActionRecord]]


@dataclass(frozen=True)
class Request:
    """How many images, how many of each's highest groups, whose models draw ("": see `drawer`)."""

    images: int
    top: int = 1
    by: str = ""
    device: str = "auto"


@dataclass(frozen=True, eq=False)
class _Choice:
    """One image: the groups removed, and the sets of others they are compared with."""

    plan: Plan
    top: frozenset[str]
    others: tuple[frozenset[str], ...]


def drawer(project: Project, by: str = "") -> Counterfactuals:
    """The models of method `by` that draw; without it retrained ones, or else unlearned ones.

    MissingError where the store has none.
    """
    if by:
        return counterfactuals.find(project, by)
    try:
        return counterfactuals.find(project, "logo")
    except MissingError:
        return counterfactuals.find(project, "guda")


def build(
    project: Project,
    found: Counterfactuals,
    queries: Sequence[Query],
    answers: Sequence[QueryResult],
    request: Request,
) -> Regeneration:
    """Draw what is missing with the models of `found`, and compare. `answers` belong to `queries`, in order.

    Only images that the full model draws again can take part; of models of several seeds the first draws.
    """
    chooser, left_out = Chooser(project, found.full), Counter[str]()
    models = {frozenset(what.groups): (what.name, each[0].record) for what, each in found.groups.items()}
    choices: list[_Choice] = []
    for plan in chooser.plans(queries, answers, len(queries), own=True):
        chosen = _choose(plan, models, project.data.counts, request.top, found)
        if isinstance(chosen, str):
            left_out[chosen] += 1
        elif len(choices) < request.images:
            choices.append(chosen)
    drawn = pictures(project, found.full, _wanted(choices, models, found.full), request.device)
    measures = _measures(project, request.device)
    rows = tuple(_row(choice, models, drawn, measures) for choice in choices)
    counted = [f"{why} ({n} {'images' if n > 1 else 'image'})" for why, n in left_out.items()]
    return Regeneration(
        request.top, found.method, rows, _changes(rows, measures), (*chooser.notes(full=False), *counted)
    )


def _choose(
    plan: Plan, models: Models, single: Collection[str], top: int, found: Counterfactuals
) -> _Choice | str:
    """The groups to remove for an image, of those that are `single` ones, or why nothing can be drawn."""
    names = [entry.group for entry in plan.answer.scores if entry.group in single][:top]
    highest, typed = frozenset(names), "+".join(sorted(names))
    if highest not in models:
        return f"no model without {typed} ({found.kind.command([typed])})"
    others = sorted((what for what in models if len(what) == len(highest) and not what & highest), key=sorted)
    if not others:
        return f"no model without {len(highest)} other groups"
    rng = np.random.default_rng(seed_of("guda.regeneration/1", plan.query.digest))
    picked = rng.permutation(len(others))[:OTHERS]
    return _Choice(plan, highest, tuple(others[i] for i in sorted(picked)))


def _wanted(
    choices: Sequence[_Choice], models: Models, full: ActionRecord
) -> list[tuple[str, ActionRecord, Plan]]:
    """What is to be drawn, model by model: loading weights costs more than drawing a small picture."""
    wanted = [("", full, choice.plan) for choice in choices]
    for what, (name, record) in models.items():
        wanted += [
            (name, record, choice.plan) for choice in choices if what == choice.top or what in choice.others
        ]
    return wanted


def _measures(project: Project, device: str) -> dict[str, tuple[str, Measure]]:
    """Unit and measure of a change by name; embeddings where the recipe names an encoder."""
    found: dict[str, tuple[str, Measure]] = {
        "pixels": ("levels", levels),
        "structure": ("1 - SSIM", structure),
    }
    from guda_cli.attribution.rivals.embeddings import PIXELS

    name = project.recipe.attribution.encoder
    if name != PIXELS:
        from guda_cli.attribution.rivals.similarity import load_encoder

        encoder = load_encoder(name, project.dataset().images, "cpu" if device == "auto" else device)

        def cosine(one: Pixels, other: Pixels) -> float:
            first, second = encoder.embed(np.stack([one, other]))
            return float(1.0 - first @ second)

        found["embedding"] = ("1 - cosine", cosine)
    return found


def _row(
    choice: _Choice,
    models: Models,
    drawn: Mapping[tuple[str, str], Pixels],
    measures: Mapping[str, tuple[str, Measure]],
) -> Regenerated:
    digest = choice.plan.query.digest
    full = drawn["", digest]

    def change(measure: Measure, what: frozenset[str]) -> float:
        return measure(full, drawn[models[what][0], digest])

    changes = {
        name: (change(measure, choice.top), float(np.mean([change(measure, what) for what in choice.others])))
        for name, (_, measure) in measures.items()
    }
    others = tuple(models[what][0] for what in choice.others)
    return Regenerated(choice.plan.query.spelled, digest, tuple(sorted(choice.top)), others, changes)


def _changes(rows: Sequence[Regenerated], measures: Mapping[str, tuple[str, Any]]) -> tuple[Change, ...]:
    if not rows:
        return ()
    return tuple(
        Change(name, unit, *paired(*zip(*(row.changes[name] for row in rows), strict=True)))
        for name, (unit, _) in measures.items()
    )
