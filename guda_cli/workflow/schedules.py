"""The noise schedule of a stored model, without torch."""

from __future__ import annotations

import json

import numpy as np

from guda_cli.diffusion.schedule import Schedule
from guda_cli.workflow.project import Project
from store import ActionRecord


def schedule_bytes(schedule: Schedule) -> bytes:
    """The betas of a schedule as they are stored."""
    return np.ascontiguousarray(schedule.betas, dtype="<f8").tobytes()


def read_schedule(project: Project, record: ActionRecord) -> Schedule:
    """The schedule a model was trained with, from its stored betas and configuration."""
    config = json.loads(project.read(record, "config"))
    betas = np.frombuffer(project.read(record, "betas"), dtype="<f8")
    return Schedule(betas.copy(), config["scheduler"].get("prediction_type") or "epsilon")
