"""Training images of the groups that images are owed to, for a page that may show them. Runs no network."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from guda_cli.data.queries import Query
from guda_cli.data.similarity import nearest_members
from guda_cli.report.answers.content import GroupImages, QueryResult, Training
from guda_cli.workflow.keys.removal import Removal
from guda_cli.workflow.project.project import Project
from guda_cli.workflow.scoring.looks import comparable

GROUPS = 3
"""Named groups an image of which training images are shown."""


def build(
    project: Project,
    removals: Iterable[Removal],
    queries: Sequence[Query],
    answers: Sequence[QueryResult],
    each: int,
) -> Training | None:
    """Of each named group the `each` images nearest to the image, none for 0.

    `removals` are the groups of the answers, some of which may be several of the data's groups together.
    `answers` belong to `queries`, in order.
    """
    if not each:
        return None
    wanted = {query.digest: _named(answer) for query, answer in zip(queries, answers, strict=True)}
    by_group: dict[str, list[Query]] = defaultdict(list)
    for query in queries:
        for group in wanted[query.digest]:
            by_group[group].append(query)
    parts = {what.name: what.groups for what in removals}
    data = project.dataset() if by_group else None
    found: dict[tuple[str, str], GroupImages] = {}
    for group, users in by_group.items():
        assert data is not None
        pixels, compared = comparable(project, users)
        rows = nearest_members(pixels, compared, parts[group], each)
        for query, near in zip(users, rows.tolist(), strict=True):
            images = tuple((data.names[i], data.images[i]) for i in near)
            found[query.digest, group] = GroupImages(group, images)
    shown = {digest: tuple(found[digest, g] for g in groups) for digest, groups in wanted.items() if groups}
    return Training(each, GROUPS, shown)


def _named(answer: QueryResult) -> list[str]:
    """The groups that stand out, the first few; without verdicts the first of the ranking."""
    if answer.answer is None:
        return [entry.group for entry in answer.scores[:1]]
    return [] if answer.unlike else list(answer.answer[:GROUPS])
