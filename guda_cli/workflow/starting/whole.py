"""What `guda run` will do, stage by stage, and how many seconds of each are still to be done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from guda_cli.phrases import plural
from guda_cli.time_left import Stage
from guda_cli.workflow.project import sharing
from guda_cli.workflow.project.counterfactual_kinds import KINDS
from guda_cli.workflow.project.plan import CACHED, TO_DO, Planner, Step
from guda_cli.workflow.project.project import Project
from guda_cli.workflow.scoring import calibrating
from guda_cli.workflow.starting.proposal import Speed

TRAIN, MODELS, SAMPLE, SCORE = "train", "models", "sample", "score"


@dataclass(frozen=True)
class Whole:
    """The steps of a run and its stages."""

    steps: tuple[Step, ...]
    stages: tuple[Stage, ...]

    @property
    def seconds(self) -> float:
        """Of all that is still to do."""
        return sum(stage.seconds for stage in self.stages)


def plan(project: Project, method: str, images: int, speed: Speed | None) -> Whole:
    """The plan of one run by `method` (guda or logo) that draws and scores `images` images.

    Without `speed`, and where nothing has been run in this store, seconds are 0.
    """
    planner = Planner(project)
    rate = planner.rate or (speed.training if speed else 0.0)
    forward = speed.scoring if speed else rate
    trained = [*planner.parts(), planner.full()]
    groups = planner.groups()
    seeds = (project.recipe.unlearn.seeds or (None,)) if method == "guda" else (None,)
    made = [step for seed in seeds for step in planner.models(method, groups, seed)]
    alone, missing = _seconds(made, rate), sum(step.status != CACHED for step in made)
    at_once = 1
    if project.known_data() is not None and sharing.on_cpu("auto"):
        operation = KINDS[method].operation
        at_once = sharing.at_once(project, operation, missing, alone, project.known_full())
    cells = project.recipe.score.timesteps * project.recipe.score.draws
    calibrated = 0 if calibrating.known(project) else calibrating.size(project)
    scored = (images + calibrated) * cells * (1 + len(made))
    sampled = images * project.recipe.sample.steps
    stages = (
        Stage(TRAIN, _seconds(trained, rate)),
        Stage(MODELS, alone / at_once),
        Stage(SAMPLE, sampled * forward),
        Stage(SCORE, scored * forward, counted=False),
    )
    drawn = _step("sample", plural(images, "image", "images"), sampled, forward)
    what = f"these, and {calibrated} for the verdicts" if calibrated else "these"
    score = _step("score", what, scored, forward)
    return Whole((planner.dataset(), *trained, *made, drawn, score), stages)


def _seconds(steps: Sequence[Step], rate: float) -> float:
    """What of `steps` is not in the store, less what an interrupted one has done."""
    missing = [step for step in steps if step.status != CACHED and step.forwards is not None]
    return sum((step.forwards or 0.0) * rate * (1.0 - step.done) for step in missing)


def _step(name: str, why: str, forwards: int, rate: float) -> Step:
    seconds = forwards * rate or None
    return Step(name, TO_DO, why, None, float(forwards), seconds, f"guda {name}")
