"""A rival method's report, read from the store. Runs no network."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from guda_cli.data.queries import Query
from guda_cli.errors import MissingError
from guda_cli.phrases import plural
from guda_cli.report.answers.content import CostRow, QueryResult, Regeneration, ReportModel, summarise
from guda_cli.settings.reading import dump
from guda_cli.store import ActionRecord
from guda_cli.workflow.project import losses
from guda_cli.workflow.project.project import Project, now, provenance
from guda_cli.workflow.reporting import regeneration, training_images
from guda_cli.workflow.scoring import instance_settings, remembered
from guda_cli.workflow.scoring.conditions import Given
from guda_cli.workflow.scoring.instance_run import InstanceRun, make_run
from guda_cli.workflow.scoring.looks import known_looks


def build(
    project: Project,
    method: str,
    instances: int,
    redraw: regeneration.Request | None = None,
    images: Collection[str] | None = None,
    training: int = 0,
) -> ReportModel:
    """Everything scored by `method` with the recipe's settings; MissingError when nothing was.

    Of `images`, by their pixels' digests, where they are given. With `redraw` also what models without the
    groups draw in the images' place, with `training` so many training images of the first groups.
    """
    chosen = instance_settings.settings(method, project.recipe.attribution)
    run = make_run(project, chosen, "auto", given=Given(), instances=instances)
    records = [r for r in project.store.records("score") if _belongs(r, run)]
    ordered = remembered.by_name(remembered.images(project, records).values(), images)
    if not ordered:
        raise MissingError(
            f"no image has been scored by {method} with these settings",
            fix=f"guda score IMAGE --method {method}",
        )
    answers = run.read(ordered)
    warnings = losses.of_others(
        project, lambda record: _belongs(record, run), ("score",), f"guda score IMAGE --method {method}"
    )
    if left_out := len(ordered) - len(answers):
        images_are = plural(left_out, "image is", "images are")
        warnings.append(f"{images_are} left out: the scores are not in the store any more")
    groups = [what.name for what in run.removals]
    prepared = run.known_preparation()
    costs = [_cost("prepare", run.settings.name, prepared)] if prepared else []
    costs += [
        _cost("score", plural(int(r.provenance.get("images") or 0), "image", "images"), r) for r in records
    ]
    return ReportModel(
        title=f"Which groups are these images owed to? ({project.recipe.name})",
        recipe_name=project.recipe.name,
        recipe_yaml=dump(project.recipe),
        method=run.settings.name,
        weighting="",
        weighting_unit=run.unit,
        grid="",
        timesteps=0,
        draws=0,
        seed=int(chosen.values.get("seed", 0)),
        created=now(),
        groups=tuple(groups),
        group_sizes=dict(project.data.counts),
        queries=tuple(answers),
        costs=tuple(costs),
        provenance={
            **provenance(),
            "dataset": {"digest": project.data.blob, "images": project.data.images},
            "models": {"full": run.full.outputs["weights"]},
            "settings": {**chosen.values, "aggregate": str(run.how)},
        },
        counterfactual=False,
        warnings=tuple(warnings),
        sentence=chosen.row.sentence,
        regeneration=_regeneration(project, ordered, answers, redraw),
        training=training_images.build(project, run.removals, ordered, answers, training),
        looks=known_looks(project),
        **summarise(answers, groups)._asdict(),
    )


def _regeneration(
    project: Project,
    queries: list[Query],
    answers: Sequence[QueryResult],
    request: regeneration.Request | None,
) -> Regeneration | None:
    if request is None:
        return None
    return regeneration.build(project, regeneration.drawer(project, request.by), queries, answers, request)


def _belongs(record: ActionRecord, run: InstanceRun) -> bool:
    return (
        record.params.get("method") == run.method
        and record.params.get("values") == dict(run.settings.values)
        and record.inputs.get("full") == run.full.outputs["weights"]
    )


def _cost(step: str, what: str, record: ActionRecord) -> CostRow:
    seen = record.provenance
    return CostRow(step, what, seen.get("wall_seconds"), seen.get("forwards"), "run", record.created)
