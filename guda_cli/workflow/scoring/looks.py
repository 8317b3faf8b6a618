"""What a query looks like: the group of its nearest training images, of large ones by small copies."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from guda_cli.data.dataset import Dataset, Pixels, from_bytes, make_dataset, to_bytes
from guda_cli.data.images import small
from guda_cli.data.queries import Query
from guda_cli.data.similarity import nearest_groups
from guda_cli.workflow.keys.operations import Action
from guda_cli.workflow.project.project import Job, Made, Project

LARGEST, SMALL = 64, 32  # pixels a side: images above are compared as copies of SMALL x SMALL


def looks_like(project: Project, queries: Sequence[Query]) -> list[str]:
    """For each query the group that its nearest training images are of (see `nearest_groups`)."""
    return nearest_groups(*comparable(project, queries))


def comparable(project: Project, queries: Sequence[Query]) -> tuple[Pixels, Dataset]:
    """The queries' pixels [Q, C, H, W] and the training images, of one size: that of small copies at most.

    The copies of large images are made once and kept in the store, so that a score need not read them all.
    """
    pixels = np.stack([query.pixels for query in queries])
    if project.data.shape[1] <= LARGEST:
        return pixels, project.dataset()
    return small(pixels, SMALL), _copies(project)


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
