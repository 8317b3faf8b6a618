"""Checking the full model after its training: has it learnt anything?"""

from __future__ import annotations

from guda_cli.jsonable import canonical
from guda_cli.store import ActionRecord
from guda_cli.training import soundness
from guda_cli.training.soundness import TrainingCheck
from guda_cli.workflow.models.jobs import LazyJobs
from guda_cli.workflow.project.project import Job, Made, Project
from guda_cli.workflow.project.training_check import OUTPUT, action, read


def check_training(project: Project, full: ActionRecord, jobs: LazyJobs) -> TrainingCheck:
    """What is known of the full model's soundness, from the store or worked out."""
    return read(project, project.ensure(Job(action(project, full), lambda: _made(project, full, jobs))))


def _made(project: Project, full: ActionRecord, jobs: LazyJobs) -> Made:
    from guda_cli.training.baselines import Looked, PixelMean

    models = jobs.models(full)
    images, schedule = models.space.training_images, models.schedule
    entries = soundness.entries_of(float(full.provenance.get("forwards") or 0.0))
    looked = Looked(images, schedule, models.space.training_conditions, entries)
    fresh = models.denoiser(models.untrained(project.recipe.train.seed).eval())
    check = soundness.judge(
        schedule.T,
        looked.losses(models.use(full), models.batch_size),
        looked.losses(fresh, models.batch_size),
        looked.mean_losses(PixelMean(images)),
    )
    return Made({OUTPUT: canonical(check.to_dict())}, {"forwards": 2 * soundness.BANDS * entries})
