"""The counterfactual gallery: an image, and the same noise drawn by models that never saw one of its groups.

Every picture is a stored action of its own, drawn alone, so that it is drawn once and comes out the same
whatever else a report shows. Imports no torch unless a picture is missing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from guda_cli.attribution.picture_changes import levels
from guda_cli.data.classes import Classes
from guda_cli.data.dataset import Pixels
from guda_cli.data.origins import Origin
from guda_cli.data.queries import Query
from guda_cli.diffusion.noise import seed_of
from guda_cli.report.answers.content import Counterpart, Gallery, GalleryRow, QueryResult
from guda_cli.store import ActionRecord
from guda_cli.workflow.models import drawing
from guda_cli.workflow.models.drawing import Settings
from guda_cli.workflow.models.jobs import LazyJobs
from guda_cli.workflow.project.compute import setup
from guda_cli.workflow.project.project import Project
from guda_cli.workflow.scoring.counterfactuals import Counterfactuals

SAME = 1.0  # mean levels of 255: more than rounding on another machine, less than between any two images

_UNKNOWN = "nothing says how guda sample drew it"
_NO_CONDITION = ", and it has no class or prompt to draw another picture of"
_OTHER_MODEL = "another model than the current full one drew it"
_OTHER_CLASS = "the model has no such class as it was drawn with"


@dataclass(frozen=True)
class Request:
    """How much of a gallery: the first `images`, and the `top` groups of each."""

    images: int = 8
    top: int = 3
    device: str = "auto"


@dataclass(frozen=True, eq=False)
class Plan:
    """What to draw for one image; `redrawn` from its own noise."""

    query: Query
    answer: QueryResult
    settings: Settings
    redrawn: bool


def build(
    project: Project,
    found: Counterfactuals,
    queries: Sequence[Query],
    answers: Sequence[QueryResult],
    request: Request,
) -> Gallery:
    """Draw what is missing, and put the gallery together. `answers` belong to `queries`, in order.

    Of a group with models of several seeds the first one draws.
    """
    chooser = Chooser(project, found.full)
    plans = chooser.plans(queries, answers, request.images)
    models = {
        entry.group: found.named(entry.group)[0].record
        for plan in plans
        for entry in plan.answer.scores[: request.top]
    }
    # Model by model: loading weights costs more than drawing a small picture.
    wanted = [("", found.full, plan) for plan in plans]
    for group, record in models.items():
        users = (p for p in plans if group in [e.group for e in p.answer.scores[: request.top]])
        wanted += [(group, record, plan) for plan in users]
    drawn = pictures(project, found.full, wanted, request.device)
    rows = tuple(_row(plan, drawn, request.top) for plan in plans)
    return Gallery(rows, chooser.notes(full=len(plans) == request.images))


class Chooser:
    """Decides what can be drawn for an image, and counts what cannot."""

    def __init__(self, project: Project, full: ActionRecord) -> None:
        self.project, self.model = project, project.model(full).weights
        self.classes: Classes | None = project.classes(full)
        self.prompts = project.family.prompts
        self.left_out: Counter[str] = Counter()

    def plans(
        self, queries: Sequence[Query], answers: Sequence[QueryResult], most: int, *, own: bool = False
    ) -> list[Plan]:
        """The first `most` images that something can be drawn for; with `own` from their own noise only."""
        out: list[Plan] = []
        for query, answer in zip(queries, answers, strict=True):
            if len(out) == most:
                break
            again = self._own(query.origin)
            settings = again or (None if own else self._alike(query))
            if settings is None:
                self.left_out[self._why(query, own)] += 1
            else:
                out.append(Plan(query, answer, settings, again is not None))
        return out

    def notes(self, full: bool) -> tuple[str, ...]:
        """What was left out among the images looked at, and why; in a `full` gallery those are not all."""
        before = " before the last one shown" if full else ""
        return tuple(
            f"{n} {'images are' if n > 1 else 'image is'} left out{before}: {why}"
            for why, n in self.left_out.items()
        )

    def _own(self, origin: Origin | None) -> Settings | None:
        """What drew the image, if that was the current full model."""
        if origin is None or origin.model != self.model:
            return None
        told = () if origin.condition is None else (origin.condition,)
        if self.classes is not None:
            guided = origin.guidance != 1.0
            if not set(told) <= set(self.classes.names) or not told or (guided and self.classes.null is None):
                return None
        return self._settings(origin.sampler, origin.steps, origin.seed, origin.index, told, origin.guidance)

    def _alike(self, query: Query) -> Settings | None:
        """Drawing another picture with the image's class or prompt; its noise hangs on the image alone."""
        told = [name for name in query.conditions if name]
        if not told or not (self.prompts or self.classes):
            return None
        spec = self.project.recipe.sample
        guidance = spec.guidance if self.prompts else 1.0
        index = seed_of("guda.gallery/1", query.pixels_digest)
        return self._settings(spec.sampler, spec.steps, spec.seed, index, (told[0],), guidance)

    def _settings(
        self, sampler: str, steps: int, seed: int, index: int, told: tuple[str, ...], guidance: float
    ) -> Settings:
        return Settings(
            1,
            sampler,
            steps,
            seed,
            classes=told if self.classes else (),
            guidance=guidance,
            prompts=told if self.prompts else (),
            indices=(index,),
        )

    def _why(self, query: Query, own: bool) -> str:
        conditional = not own and (self.prompts or self.classes is not None)
        if query.origin is None:
            why = _UNKNOWN
        else:
            why = _OTHER_MODEL if query.origin.model != self.model else _OTHER_CLASS
        return why + (_NO_CONDITION if conditional else "")


def pictures(
    project: Project,
    full: ActionRecord,
    wanted: Sequence[tuple[str, ActionRecord, Plan]],
    device: str,
) -> dict[tuple[str, str], Pixels]:
    """Pixels by group ("" for the full model) and digest of the image."""
    jobs = LazyJobs(project, lambda: setup(device))
    out = {}
    keys = {drawing.action(full, record, plan.settings).key for _, record, plan in wanted}
    missing = {key for key in keys if project.store.lookup(key) is None}
    with project.console.progress("gallery", len(missing), unit="picture") as bar:
        for group, record, plan in wanted:
            found = drawing.sample(project, full, record, plan.settings, device, jobs)
            out[group, plan.query.digest] = drawing.pixels_of(project, found)[0]
            if found.key in missing:
                missing.remove(found.key)
                bar.advance()
    return out


def _row(plan: Plan, pictures: dict[tuple[str, str], Pixels], top: int) -> GalleryRow:
    query, settings = plan.query, plan.settings
    drawn = pictures["", query.digest]
    off = levels(query.pixels, drawn)
    counterparts = []
    for rank, entry in enumerate(plan.answer.scores[:top], 1):
        pixels = pictures[entry.group, query.digest]
        counterparts.append(Counterpart(entry.group, rank, entry.score, pixels, levels(drawn, pixels)))
    noise: dict[str, Any] = {
        "seed": settings.seed,
        "index": settings.indices[0],
        "sampler": settings.sampler,
        "steps": settings.steps,
        "guidance": settings.guidance,
    }
    return GalleryRow(
        query.spelled,
        query.digest,
        query.pixels,
        drawn,
        plan.redrawn,
        plan.redrawn and off < SAME,
        off,
        tuple(counterparts),
        noise,
        settings.condition_of(0),
    )
