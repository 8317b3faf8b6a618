"""What the current recipe needs of the store: the roots of garbage collection."""

from __future__ import annotations

from guda_cli.session import Session
from guda_cli.workflow import counterfactuals
from guda_cli.workflow.plan import Planner
from guda_cli.workflow.project import Project
from guda_cli.workflow.removal import Removal
from store import ActionRecord


def current_roots(session: Session) -> tuple[set[str], set[str]] | None:
    """Keys of the actions (made, or still to be made) and of the tables that belong to the current recipe.

    None when that cannot be told, because no recipe is current or its images are not in the store:
    then everything has to stay.
    """
    if session.current() is None:
        return None
    store = session.open_store(create=False)
    project = Project(session.recipe(), store, session.console)
    planner = Planner(project)
    if planner.data is None:
        return None
    steps = [planner.dataset(), planner.full()]
    for method in counterfactuals.METHODS:
        steps += planner.models(method, planner.groups() + planner.nulls())
    keys = {step.key for step in steps if step.key}
    full = project.known_full()
    records = list(store.records())
    keys |= {record.key for record in records if full and _made_with_current(project, full, record)}
    blobs = {digest for record in records if record.key in keys for digest in record.outputs.values()}
    keys |= {record.key for record in records if _rests_on(record, blobs)}
    tables = {
        table["table"]
        for table in store.tables()
        if table["spec"] is None or blobs.issuperset(table["spec"].get("inputs", {}).values())
    }
    return keys, tables


def _rests_on(record: ActionRecord, blobs: set[str]) -> bool:
    """Whether samples or scores were made from models whose outputs are `blobs`, and nothing else."""
    model = record.operation in ("train", "unlearn")
    return not model and bool(record.inputs) and blobs.issuperset(record.inputs.values())


def _made_with_current(project: Project, full: ActionRecord, record: ActionRecord) -> bool:
    """Whether a counterfactual model, of several groups together perhaps, has the current settings."""
    without = record.params.get("without")
    if record.operation not in ("train", "unlearn") or not without:
        return False
    what = Removal(tuple(without["groups"])) if "groups" in without else Removal(**without["random"])
    method = "guda" if record.operation == "unlearn" else "logo"
    return counterfactuals.action_of(project, method, full, what).key == record.key
