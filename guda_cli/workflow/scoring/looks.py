"""What a query looks like: the group of its nearest training images, of large ones by small copies."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np

from guda_cli.data.dataset import Dataset, Pixels, from_bytes, make_dataset, to_bytes
from guda_cli.data.images import small
from guda_cli.data.queries import Query
from guda_cli.data.similarity import NEIGHBOURS, SAMPLE, Accuracy, accuracy, nearest_groups
from guda_cli.jsonable import canonical
from guda_cli.report.answers.content import Looks
from guda_cli.workflow.keys.operations import LOOK_ACCURACY, Action
from guda_cli.workflow.project.project import Job, Made, Project

LARGEST, SMALL = 64, 32  # pixels a side: images above are compared as copies of SMALL x SMALL


def looks_like(project: Project, queries: Sequence[Query]) -> list[str | None]:
    """For each query the group that its nearest training images are of (see `nearest_groups`).

    None for all where that is too often wrong of training images themselves (`similarity.Accuracy`).
    """
    if not how_sure(project).trusted:
        return [None] * len(queries)
    return list(nearest_groups(*comparable(project, queries)))


def comparable(project: Project, queries: Sequence[Query]) -> tuple[Pixels, Dataset]:
    """The queries' pixels [Q, C, H, W] and the training images, of one size: that of small copies at most.

    The copies of large images are made once and kept in the store.
    """
    pixels = np.stack([query.pixels for query in queries])
    if project.data.shape[1] <= LARGEST:
        return pixels, project.dataset()
    return small(pixels, SMALL), _copies(project)


def how_sure(project: Project) -> Accuracy:
    """How often the nearest training images are of a right group."""

    def measure() -> Accuracy:
        return accuracy(project.dataset() if project.data.shape[1] <= LARGEST else _copies(project))

    params = {"neighbours": NEIGHBOURS, "images": SAMPLE}
    action = Action(LOOK_ACCURACY, params, {"dataset": project.data.blob}, "how sure `looks like` is")
    if project.store.read_only and project.store.lookup(action.key) is None:
        return measure()
    record = project.ensure(Job(action, lambda: Made({"accuracy": canonical(asdict(measure()))})))
    return Accuracy(**json.loads(project.read(record, "accuracy")))


def known_looks(project: Project) -> Looks:
    """The same for a report."""
    found = how_sure(project)
    return Looks(found.value, found.images, found.trusted)


def _copies(project: Project) -> Dataset:
    """The training images at SMALL x SMALL with their groups."""
    action = Action("small-copies", {"size": SMALL}, {"dataset": project.data.blob}, "small copies")
    if project.store.read_only and project.store.lookup(action.key) is None:
        return _of(project.dataset())
    record = project.ensure(Job(action, lambda: Made({"data": to_bytes(_of(project.dataset()))})))
    return from_bytes(project.read(record, "data"))


def _of(data: Dataset) -> Dataset:
    labels = [[data.groups[j] for j in np.flatnonzero(row)] for row in data.membership]
    return make_dataset(small(data.images, SMALL), data.names, labels)
