"""Progress and resume state of a training loop that runs as an action."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from guda_cli import environment
from guda_cli.training import loop
from guda_cli.training.run_state import RunState
from guda_cli.workflow.keys.operations import Action
from guda_cli.workflow.project.project import Project


@contextmanager
def run_hooks(project: Project, action: Action) -> Iterator[tuple[RunState | None, loop.Hooks]]:
    """The state to go on from, if one was saved, and hooks that show progress and save the next ones."""
    store = project.store
    saved = store.load_state(action.key)
    resume = RunState.from_bytes(*saved) if saved else None
    if resume:
        project.console.say(f"{action.what}: going on at step {resume.step} of {action.steps}")
    done = resume.step if resume else 0
    with project.console.progress(action.what, action.steps, start=done) as bar:
        hooks = saving_hooks(project, action)
        hooks.on_step = lambda loss: bar.advance(1, loss=loss)
        hooks.say = project.console.warn
        yield resume, hooks


def saving_hooks(project: Project, action: Action) -> loop.Hooks:
    """Hooks that save the states of `action`, and show nothing."""
    store = project.store
    return loop.Hooks(
        save=lambda state: store.save_state(action.key, state.step, state.to_bytes()),
        save_seconds=environment.seconds("GUDA_CHECKPOINT_SECONDS", 20.0),
    )
