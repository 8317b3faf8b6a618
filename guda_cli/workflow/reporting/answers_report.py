"""The report's content, read from the store. Runs no network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from guda_cli.attribution import methods
from guda_cli.data.queries import Query
from guda_cli.diffusion import grid as grids
from guda_cli.diffusion import weighting as weightings
from guda_cli.errors import MissingError, UsageError
from guda_cli.phrases import plural
from guda_cli.report.answers.content import Check, CostRow, QueryResult, Regeneration, ReportModel, summarise
from guda_cli.settings.reading import dump
from guda_cli.store import ActionRecord
from guda_cli.workflow.project import losses, precision, training_check
from guda_cli.workflow.project.counterfactual_kinds import GUDA, KINDS, LOGO
from guda_cli.workflow.project.project import Project, now, provenance
from guda_cli.workflow.reporting import retrained, training_images
from guda_cli.workflow.reporting.gallery import Request
from guda_cli.workflow.reporting.gallery import build as build_gallery
from guda_cli.workflow.reporting.page_maps import Request as MapRequest
from guda_cli.workflow.reporting.page_maps import build as build_maps
from guda_cli.workflow.reporting.regeneration import Request as Redraw
from guda_cli.workflow.reporting.regeneration import build as build_regeneration
from guda_cli.workflow.reporting.regeneration import drawer
from guda_cli.workflow.scoring import answers, asked_scores, calibrating, counterfactuals
from guda_cli.workflow.scoring.asked_scores import Asked
from guda_cli.workflow.scoring.counterfactuals import Counterfactuals
from guda_cli.workflow.scoring.elbo_tables import Tables
from guda_cli.workflow.scoring.looks import known_looks, looks_like
from guda_cli.workflow.scoring.ranking import AUTO, choose
from guda_cli.workflow.scoring.stored_scores import StoredScores
from guda_cli.workflow.scoring.strangers import Strangers

TOO_FEW = "there are too few training images, or score.calibration is 0"


@dataclass(frozen=True)
class Shown:
    """What a report is asked for: which scores, their order, and pictures drawn for it."""

    rank: str = AUTO
    asked: Asked = field(default_factory=Asked)
    gallery: Request | None = None
    regeneration: Redraw | None = None
    training: int = 0
    """Training images of each named group, for a page that may show them."""
    maps: MapRequest | None = None


def of_method(
    project: Project, method: str, weighting: str, shown: Shown | None = None, *, instances: int = 0
) -> ReportModel:
    """Everything scored by one method of `guda score`, of whatever kind; errors as `build`.

    UsageError for a gallery or maps of a method that makes no models.
    """
    if method in KINDS:
        return build(project, method, weighting, shown)
    shown = shown or Shown()
    if shown.gallery or shown.maps:
        option = "--gallery" if shown.gallery else "--maps"
        raise UsageError(
            f"{option} needs models without the groups", why=f"{method} makes none", fix="--method guda"
        )
    from guda_cli.workflow.reporting import instances_report

    return instances_report.build(
        project, method, instances, shown.regeneration, shown.asked.images, shown.training
    )


def build(project: Project, method: str, weighting: str, shown: Shown | None = None) -> ReportModel:
    """What was scored under `method`'s current models with the recipe's settings, or as `shown` says.

    MissingError when there is no model or no scored image.
    """
    shown = shown or Shown()
    chosen = weightings.parse(weighting)
    found = counterfactuals.find(project, method)
    scorings = asked_scores.choose(project, found, shown.asked)
    if not scorings.records:
        why = f"asked for:{shown.asked.options}" if shown.asked.options else ""
        raise MissingError(
            "no image has been scored so with the current models",
            why=why,
            fix=f"guda score IMAGE{shown.asked.options}",
        )
    if not scorings.queries:
        raise MissingError(
            "none of these images has been scored with these settings and models",
            fix=f"guda score IMAGE{shown.asked.options}",
        )
    records, last = scorings.records, {"grid": scorings.grid, "compute": scorings.compute}
    schedule = project.model(found.full).schedule
    built = grids.build(last["grid"], schedule.T)
    reading = answers.Reading(built, schedule, chosen, dict(project.data.counts), project.family.latent)
    queries, cells, skipped = _cells(project, found, reading, last, list(scorings.queries))
    groups, judge = found.mean(cells), _judge(project, found, reading, last, queries)
    looks, names = looks_like(project, queries), [what.name for what in groups]
    ranking = choose(shown.rank, list(groups), project.data.counts, calibrated=judge is not None)
    scores = StoredScores(project, found, reading, last, queries).scores(cells)
    line = retrained.known(project, found, reading, last, queries, scores)
    made = answers.assemble(reading, queries, cells[""], list(groups), scores, looks, judge, ranking)
    found_answers, trained = retrained.foretold(made, line), training_check.known(project, found.full)
    return ReportModel(
        title=f"Which groups are these images owed to? ({project.recipe.name})",
        recipe_name=project.recipe.name,
        recipe_yaml=dump(project.recipe),
        method=method,
        weighting=chosen.name,
        weighting_unit=reading.unit,
        grid=grids.name_of(last["grid"]),
        timesteps=built.timesteps.shape[1],
        draws=built.timesteps.shape[0],
        seed=int(last["grid"]["seed"]),
        created=now(),
        groups=tuple(names),
        group_sizes={what.name: what.images(project.data.counts) for what in groups},
        queries=found_answers,
        training_check=trained.to_dict() if trained else None,
        checks=_checks(project, found),
        null=calibrating.facts(project, judge.calibration) if judge else None,
        costs=_costs(found, records),
        provenance=_provenance(project, found, last),
        warnings=(*_warnings(project, found, skipped, judge), *scorings.notes),
        gallery=build_gallery(project, found, queries, found_answers, shown.gallery)
        if shown.gallery
        else None,
        sentence=methods.find(method).sentence,
        ranked=ranking.words,
        retraining=asdict(line) if line else None,
        regeneration=_regeneration(project, found, queries, found_answers, shown.regeneration),
        training=training_images.build(project, groups, queries, found_answers, shown.training),
        maps=build_maps(project, found, reading, queries, found_answers, shown.maps) if shown.maps else None,
        looks=known_looks(project),
        **summarise(found_answers, names)._asdict(),
    )


def _regeneration(
    project: Project,
    found: Counterfactuals,
    queries: list[Query],
    known: Sequence[QueryResult],
    request: Redraw | None,
) -> Regeneration | None:
    """By the method's own models, unless others are asked for."""
    if request is None:
        return None
    draws = drawer(project, request.by) if request.by else found
    return build_regeneration(project, draws, queries, known, request)


def _cells(
    project: Project,
    found: Counterfactuals,
    reading: answers.Reading,
    last: Mapping[str, Any],
    queries: list[Query],
) -> tuple[list[Query], dict[str, Any], int]:
    """Terms under every model of the images that have them all, and how many images do not."""
    tables = Tables(project, found.records(), last["grid"], last["compute"], reading.schedule.T)
    wanted = [query.digest for query in queries]
    complete = tables.complete(wanted)
    kept = [query for query in queries if query.digest in complete]
    if not kept:
        raise MissingError("no image has scores under every current model", fix="guda score IMAGE")
    cells = {}
    for name in found.records():
        terms, missing = tables.read(name, [query.digest for query in kept])
        if missing:  # a segment turned out damaged: its rows are gone until they are scored again
            return _cells(project, found, reading, last, [q for q in kept if q.digest not in set(missing)])
        cells[name] = terms
    return kept, cells, len(wanted) - len(kept)


def _judge(
    project: Project,
    found: Counterfactuals,
    reading: answers.Reading,
    last: Mapping[str, Any],
    queries: list[Query],
) -> answers.Judge | None:
    """What verdicts go by, where all of it is in the store."""
    known = calibrating.known(project)
    if known is None:
        return None
    grid_spec, records = calibrating.grid_of(last["grid"]), found.records()
    tables = Tables(project, records, grid_spec, last["compute"], reading.schedule.T)
    cells, strangers = tables.stored(known.queries), Strangers(project, found.full)
    far, theirs = strangers.stored(queries), strangers.stored(known.queries)
    if cells is None or far is None or theirs is None or np.isnan(theirs).any():
        return None
    strange = strangers.strange(theirs)
    calibration = calibrating.calibrate(replace(reading, grid=tables.grid), cells, found, known, strange)
    return answers.Judge(calibration, strangers.strange(far), ~np.isnan(far))


def _checks(project: Project, found: Counterfactuals) -> tuple[Check, ...]:
    checked = ((what.name, project.model(models[0].record).check) for what, models in found.groups.items())
    return tuple(Check(group=name, **check) for name, check in checked if check)


def _costs(found: Counterfactuals, scored: Sequence[ActionRecord]) -> tuple[CostRow, ...]:
    out = [_cost_row("train", "full model", found.full)]
    for model in found.models():
        out.append(_cost_row(found.kind.step, model.label, model.record))
    for record in scored:
        out.append(
            _cost_row("score", plural(int(record.provenance.get("images") or 0), "image", "images"), record)
        )
    return tuple(out)


def _cost_row(step: str, what: str, record: ActionRecord) -> CostRow:
    seen = record.provenance
    seconds = (seen.get("wall_seconds") or 0.0) + (seen.get("seconds_before_resume") or 0.0)
    status = "run" if seen.get("forwards") else "cached"
    return CostRow(step, what, seconds, seen.get("forwards"), status, record.created)


def _provenance(project: Project, found: Counterfactuals, last: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **provenance(),
        "dataset": {"digest": project.data.blob, "images": project.data.images},
        "models": {name or "full": record.outputs["weights"] for name, record in found.records().items()},
        "trained": {
            "argv": found.full.provenance.get("argv"),
            "created": found.full.created,
            "packages": found.full.provenance.get("packages"),
        },
        "compute": dict(last["compute"]),
        "precision": _precision(project, found, last["compute"]),
        "grid": dict(last["grid"]),
        "operator": next(found.models()).action.params.get("unlearn"),
        "oracle_seeds": list(found.seeds),
    }


def _precision(project: Project, found: Counterfactuals, compute: Mapping[str, Any]) -> dict[str, Any] | None:
    """What was measured of the precision that the scores are in; nothing where it was chosen by hand."""
    known = precision.known(project, found.full, str(compute["device"]))
    own = known is not None and known.taken.key.items() <= compute.items()
    return known.to_dict() if known is not None and own else None


def _lost(project: Project, found: Counterfactuals) -> list[str]:
    """What is damaged or gone of scored images, and of the models that foretell retraining."""

    def mine(record: ActionRecord) -> bool:
        of_model = record.inputs.get("full") == found.full.outputs["weights"]
        return of_model and record.params.get("method") == found.method

    out = losses.of_others(project, mine, ("score",), "guda score IMAGE")
    if found.kind is GUDA:
        out += losses.of_models(project, LOGO, found.full, (), lambda seed: True)
    return out


def _warnings(
    project: Project, found: Counterfactuals, skipped: int, judge: answers.Judge | None
) -> list[str]:
    out = counterfactuals.warnings(project, found)
    out += _lost(project, found)
    if judge is not None and not judge.known.all():
        unjudged = plural(int((~judge.known).sum()), "image was", "images were")
        out.append(f"{unjudged} scored without a verdict (guda score IMAGE gives one)")
    if judge is None:
        out.append(
            "nothing says whether a group stands out: "
            + ("the verdicts are not calibrated (guda score IMAGE)" if calibrating.size(project) else TOO_FEW)
        )
    if skipped:
        left = plural(skipped, "image is left out: it has", "images are left out: they have")
        out.append(f"{left} not been scored under every current model")
    if found.lacking:
        out.append("no model without " + ", ".join(what.name for what in found.lacking))
    return out
