"""What the pages of `guda view` ask for: each a piece of HTML, worked out as the commands work it out."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guda_cli import failures
from guda_cli.errors import DataError
from guda_cli.session import Options, Session

if TYPE_CHECKING:
    from guda_cli.report.answers.content import ReportModel
    from guda_cli.workflow.project.project import Project
    from guda_cli.workflow.scoring.counterfactual_run import ScoreRun

METHOD = "guda"
Answer = dict[str, Any]


def run(args: list[str]) -> int:
    """Do the job that the first argument describes, print its answer as JSON; the exit code of a command."""
    request = json.loads(args[0])
    sys.argv[1:] = ["view"]  # what records say of who made them
    session = Session(Options(store=Path(request["store"]), device=request["device"], quiet=True))
    try:
        answer, code = JOBS[request["job"]](session, request), 0
    except BaseException as err:  # the outermost frame: everything ends as an answer
        if failures.debugging():
            raise
        known = failures.explain(err)
        answer, code = {"error": known.message, "why": known.why, "fix": known.fix}, known.exit_code
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()
    return code


def _project(session: Session) -> Project:
    from guda_cli.workflow.project.project import Project

    return Project(session.recipe(), session.open_store(create=False), session.console)


def about(session: Session, request: Mapping[str, Any]) -> Answer:
    """The recipe, and what the models are told beside an image: "class", "prompt" or nothing."""
    project = _project(session)
    told = project.family.told(project.recipe)
    groups = sorted(project.data.counts)
    return {"recipe": project.recipe.name, "told": told, "classes": groups if told == "class" else []}


def card(session: Session, request: Mapping[str, Any]) -> Answer:
    """Score the image file `file` of the working directory as `guda score FILE` does; its card."""
    project = _project(session)
    [block] = _run(project, session, str(request["condition"])).blocks([str(request["file"])])
    if not block.queries:
        raise DataError(f"cannot read {request['file']}", why=block.bad[0][1])
    [query] = block.queries
    return _cards(_report(project, session, query.pixels_digest), query.digest)


def scored(session: Session, request: Mapping[str, Any]) -> Answer:
    """The cards of the images that were scored."""
    return _cards(_report(_project(session), session), None)


def gallery(session: Session, request: Mapping[str, Any]) -> Answer:
    """The image with the digest of pixels `pixels`, drawn again without its highest groups."""
    from guda_cli.report.answers.page_gallery import gallery_section

    model = _report(_project(session), session, str(request["pixels"]), gallery=True)
    return {"html": gallery_section(model)}


def store(session: Session, request: Mapping[str, Any]) -> Answer:
    """What the store has and lacks of the current recipe."""
    from guda_cli.phrases import human_bytes
    from guda_cli.report.pieces.markup import Column, esc, scrolling, table
    from guda_cli.workflow.project.plan import Planner

    project = _project(session)
    project.seen_data()
    rows = [
        [esc(s.what), esc(s.status), esc(s.why), f"<code>{esc((s.key or '')[:12])}</code>"]
        for s in Planner(project).unlearning()
    ]
    caption = f"Recipe {project.recipe.name}"
    shown = table(caption, [Column("Step"), Column("Status"), Column("Why"), Column("Key")], rows)
    counts: dict[str, int] = {}
    for record in project.store.records():
        counts[record.operation] = counts.get(record.operation, 0) + 1
    kinds = [[esc(name), f"{count:,}"] for name, count in sorted(counts.items())]
    records = table("Records", [Column("Operation"), Column("Number", True)], kinds)
    size = human_bytes(project.store.usage()["bytes"])
    line = f"<p>{esc(str(project.store.root))}: {esc(size)}</p>"
    return {"html": line + scrolling(shown, caption) + scrolling(records, "Records")}


def rehearse(session: Session, request: Mapping[str, Any]) -> Answer:
    """Read what a score needs, and compute nothing: for a process that keeps it."""
    project = _project(session)
    scoring = _run(project, session, "")
    if any(step.status != "cached" for step in scoring.plan([])):
        return {}  # the first score makes it
    _ = scoring.calibration
    models = scoring.model_terms.jobs.models(scoring.found.full)
    for record in scoring.found.records().values():
        models.use(record)
    return {}


JOBS: dict[str, Callable[[Session, Mapping[str, Any]], Answer]] = {
    function.__name__: function for function in (about, card, scored, gallery, store, rehearse)
}


def _run(project: Project, session: Session, condition: str) -> ScoreRun:
    """As `guda score` makes it without options but a class or a prompt."""
    from guda_cli.workflow.scoring.conditions import Given
    from guda_cli.workflow.scoring.counterfactual_run import ScoreRun, Settings

    told = project.family.told(project.recipe)
    given = Given()
    if condition:
        given = Given(class_=condition) if told == "class" else Given(prompts=(condition,))
    settings = Settings.of(project.recipe.score, METHOD, given=given)
    return ScoreRun(project, settings, session.options.device)


def _report(project: Project, session: Session, pixels: str = "", *, gallery: bool = False) -> ReportModel:
    """What `guda report` shows, of all images or of those with a digest of pixels."""
    from guda_cli.workflow.reporting.answers_report import Shown, of_method
    from guda_cli.workflow.reporting.gallery import Request
    from guda_cli.workflow.scoring.asked_scores import Asked

    asked = Asked(images=frozenset({pixels}) if pixels else None)
    drawn = Request(1, 3, session.options.device) if gallery else None
    shown = Shown(asked=asked, gallery=drawn)
    return of_method(project, METHOD, project.recipe.score.weighting, shown)


def _cards(model: ReportModel, digest: str | None) -> Answer:
    """The cards of all images, or of one, each with the digest of its pixels."""
    from guda_cli.data.images import pixels_digest
    from guda_cli.report.answers import page

    wanted = [query for query in model.queries if digest in (None, query.digest)]
    shown = [(query.pixels, page.card(model, query)) for query in wanted]
    cards = [{"pixels": "" if own is None else pixels_digest(own), "html": html} for own, html in shown]
    return {"cards": cards, "notes": list(model.warnings)}
