"""What the current recipe needs of the store: the roots of garbage collection."""

from __future__ import annotations

from guda_cli.families.known import FAMILIES
from guda_cli.store import ActionRecord
from guda_cli.workflow.keys import part_keys
from guda_cli.workflow.keys.operations import MODELS
from guda_cli.workflow.project.counterfactual_kinds import KINDS, remakes
from guda_cli.workflow.project.plan import Planner
from guda_cli.workflow.project.project import Project


def roots(project: Project) -> tuple[set[str], set[str]] | None:
    """Keys of the actions (made, or still to be made) and of the tables that belong to the project's recipe.

    None when that cannot be told, because its images are not in the store: then everything has to stay.
    """
    store, planner = project.store, Planner(project)
    if planner.data is None:
        return None
    steps = [planner.dataset(), *planner.parts(), planner.full()]
    for method in KINDS:
        steps += planner.models(method, planner.groups() + planner.nulls())
    keys = {step.key for step in steps if step.key}
    keys |= part_keys.keys(project.recipe, planner.data, store)
    full = project.known_full()
    records = list(store.records())
    keys |= {record.key for record in records if full and _made_with_current(project, full, record)}
    blobs = {digest for record in records if record.key in keys for digest in record.outputs.values()}
    for record in records:  # oldest first: what was made from another comes after it
        if record.key not in keys and _rests_on(record, blobs):
            keys.add(record.key)
            blobs.update(record.outputs.values())
    tables = {
        table["table"]
        for table in store.tables()
        if table["spec"] is None or blobs.issuperset(table["spec"].get("inputs", {}).values())
    }
    return keys, tables


def _rests_on(record: ActionRecord, blobs: set[str]) -> bool:
    """Whether samples, scores, or what a rival method prepares were made from `blobs`, and nothing else."""
    trained = record.operation in (*MODELS, *(m.operation for f in FAMILIES.values() for m in f.makers))
    return not trained and bool(record.inputs) and blobs.issuperset(record.inputs.values())


def _made_with_current(project: Project, full: ActionRecord, record: ActionRecord) -> bool:
    """Whether a counterfactual model has the current settings: of several groups together perhaps, and the
    oracle's of whatever seed."""
    return record.operation in MODELS and remakes(project, full, record)
