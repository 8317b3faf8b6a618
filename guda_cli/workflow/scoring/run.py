"""What runs of `guda score` have in common, whatever the method."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from guda_cli.data.queries import ConditionSource, Query, load_queries
from guda_cli.phrases import few
from guda_cli.report.answers.content import QueryResult
from guda_cli.workflow.project.plan import Step
from guda_cli.workflow.project.project import Project

BLOCK = 64  # images scored together: bounds memory, whatever their number


@dataclass(frozen=True, eq=False)
class BlockResult:
    """Results of one block of images, and the (path, reason) of those that could not be read."""

    results: list[QueryResult]
    queries: list[Query]
    bad: list[tuple[str, str]]


class Run(Protocol):
    """One method on one project."""

    project: Project
    method: str
    weighting: str
    unit: str
    warnings: list[str]

    def describe(self) -> str:
        """How the scores were computed, in one line."""
        ...

    def announce(self) -> None:
        """Say what a user should know before the first score."""
        ...

    def summary(self) -> str:
        """What was computed and what came from the store."""
        ...

    def context(self) -> dict[str, Any]:
        """What every JSON line says of how it was computed."""
        ...

    def blocks(self, paths: Sequence[str]) -> Iterator[BlockResult]:
        """Results, block by block; a bad file does not stop the others."""
        ...

    def plan(self, paths: Sequence[str]) -> list[Step]:
        """What would run."""
        ...


def load(
    project: Project, paths: Sequence[str], source: ConditionSource | None
) -> tuple[list[Query], list[tuple[str, str]]]:
    """The images at `paths` and their conditions; (path, reason) of those that cannot be read."""
    channels, size, _ = project.data.shape
    queries, bad = load_queries(paths, size, channels, source)
    if source is not None:
        _say_prompts(project, queries, source)
    return queries, bad


def _say_prompts(project: Project, queries: Sequence[Query], source: ConditionSource) -> None:
    """Tell which images are scored with the empty prompt, knowing none, and what was left out of others."""
    bare = [query.name for query in queries if query.prompts == ("",)]
    if bare:
        project.console.say(
            f"no prompt is known of {few(bare, 3)}: scored with the empty prompt"
            " (--prompt TEXT or --prompts FILE)"
        )
    noted: dict[str, list[str]] = {}
    for query in queries:
        noted.setdefault(source.note_of(query.name), []).append(query.name)
    for note, names in noted.items():
        if note:
            project.console.say(f"{few(names, 3)}: {note}")
