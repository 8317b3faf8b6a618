"""What the store knows of a full model's soundness: a record of its own, once a model."""

from __future__ import annotations

import json

from guda_cli.store import ActionRecord
from guda_cli.training.soundness import TrainingCheck
from guda_cli.workflow.keys.operations import TRAINING_CHECK, Action, model_blobs
from guda_cli.workflow.project.project import Project

OUTPUT = "check"


def action(project: Project, full: ActionRecord) -> Action:
    """Checking the full model."""
    params = {"told": project.family.told(project.recipe)}
    inputs = {"dataset": project.data.blob, **project.data.parts, **model_blobs(full)}
    return Action(TRAINING_CHECK, params, inputs, "check of the full model", command="guda train")


def known(project: Project, full: ActionRecord) -> TrainingCheck | None:
    """What the store has of it: nothing of models that were taken over, nor before `guda train` has run again
    in stores of earlier versions."""
    record = project.store.lookup(action(project, full).key)
    return read(project, record) if record else None


def current(project: Project) -> TrainingCheck | None:
    """That of the project's full model; None where there is no model, or no check."""
    full = project.known_full()
    return known(project, full) if full else None


def read(project: Project, record: ActionRecord) -> TrainingCheck:
    """The check of a record."""
    return TrainingCheck.of(json.loads(project.read(record, OUTPUT)))
