"""`guda status`: what the current recipe has, lacks, and what each missing step would cost."""

from __future__ import annotations

from typing import Annotated

import typer

from guda_cli.commands.common import show_plan
from guda_cli.session import Session, command_options


@command_options(recipe=True)
def status(
    session: Session,
    logo: Annotated[bool, typer.Option("--logo", help="Also list leave-one-group-out models.")] = False,
) -> None:
    """Show what the current recipe has and lacks, and what each missing step would cost."""
    from guda_cli.workflow.project import precision
    from guda_cli.workflow.project.plan import CACHED, Planner, Step
    from guda_cli.workflow.project.project import Project
    from guda_cli.workflow.scoring.counterfactuals import oracle_seeds

    recipe, source = session.recipe_and_source(default_digits=True)
    if not session.store_path.exists():
        session.console.say(f"no store at {session.store_path} yet; guda train makes one")
        session.console.data({"schema": "guda.plan/1", "title": f"recipe {recipe.name}", "steps": []})
        return
    project = Project(recipe, session.open_store(create=False), session.console)
    project.seen_data()
    planner, full = Planner(project), project.known_full()
    steps = planner.unlearning()
    decided = precision.current(project, full) if full else None
    if full and decided:
        key = precision.key(project, full, decided)
        steps.append(Step("precision of scoring", CACHED, decided.words, key))
    if logo:
        seeds = oracle_seeds(project, full, planner.groups()) if full else (None,)
        steps += [step for seed in seeds for step in planner.models("logo", planner.groups(), seed)]
    changed = session.overrides()
    shown = f"; with {', '.join(changed[:5])}{' and more' if len(changed) > 5 else ''}" if changed else ""
    show_plan(session, steps, f"recipe {recipe.name} ({source}{shown})")
