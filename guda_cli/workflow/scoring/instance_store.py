"""What the rival methods keep in the store: one preparation, and a table of scores of training images."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from guda_cli.data.queries import Query
from guda_cli.diffusion.schedule import Array
from guda_cli.phrases import plural
from guda_cli.store import ActionRecord
from guda_cli.workflow.keys.operations import Action, model_blobs, table_spec
from guda_cli.workflow.keys.text_settings import read_latents
from guda_cli.workflow.project.project import Job, Made, Project
from guda_cli.workflow.scoring import remembered
from guda_cli.workflow.scoring.instance_settings import MethodSettings

ALSO = {"flip", "revision"}
"""Names of what `also` gives."""


def also(project: Project, method: MethodSettings) -> dict[str, Any]:
    """What beside its settings decides a method's scores; left out where it is as it ever was."""
    flip = method.row.mirrors and project.recipe.train.flip
    revision = {} if method.row.revision == 1 else {"revision": method.row.revision}
    return revision | ({"flip": True} if flip else {})


def preparation(project: Project, full: ActionRecord, method: MethodSettings) -> Action:
    """What a method computes once for a model and its training images."""
    inputs = {"dataset": project.data.blob}
    params: dict[str, Any] = {"method": method.method, "values": dict(method.values)}
    params |= also(project, method)
    if method.row.of_model:
        inputs |= model_blobs(full)
        params |= read_latents(project.recipe, full)
    return Action("attribution", params, inputs, f"{method.name}: training images")


def remember(
    project: Project,
    full: ActionRecord,
    method: MethodSettings,
    queries: Sequence[Query],
    facts: Mapping[str, Any],
) -> None:
    """Record that `queries` were scored, and what it cost; does nothing in a read-only store."""
    if project.store.read_only or not queries:
        return
    listing = json.dumps([[query.digest, query.name] for query in queries], ensure_ascii=True)
    params = {
        "method": method.method,
        "values": dict(method.values),
        "queries": hashlib.sha256(listing.encode()).hexdigest(),
        **also(project, method),
    }
    inputs = {"full": full.outputs["weights"], "dataset": project.data.blob}
    action = Action(
        "score", params, inputs, f"{method.name} scores of {plural(len(queries), 'image', 'images')}"
    )
    project.ensure(Job(action, lambda: Made({"queries": remembered.pack(queries)}, facts)))


@dataclass(frozen=True)
class ScoreTable:
    """Scores of training images, a row a query: [N] float32 in the order of the pool."""

    project: Project
    key: str
    spec: dict[str, Any]

    @staticmethod
    def of(
        project: Project,
        full: ActionRecord,
        method: MethodSettings,
        prepared: str,
        compute: Mapping[str, Any],
    ) -> ScoreTable:
        """The table of a method's scores, from the preparation whose blob is `prepared`."""
        params = {"method": method.method, "values": dict(method.values), "compute": dict(compute)}
        params |= also(project, method)
        inputs = {"prepared": prepared, "dataset": project.data.blob}
        inputs |= model_blobs(full)
        return ScoreTable(project, *table_spec("instance-scores", params, inputs))

    def computed_otherwise(self) -> list[ScoreTable]:
        """The store's tables of the same scores that differ in how they were computed (device, threads)."""
        found = [
            ScoreTable(self.project, key, spec)
            for key, spec in self.project.store.table_specs().items()
            if spec and key != self.key
        ]
        return [table for table in found if _but_compute(table.spec) == _but_compute(self.spec)]

    def missing(self, digests: Sequence[str]) -> list[str]:
        """Those of `digests` that have no row, each once."""
        have = self.project.store.table_rows(self.key)
        return [digest for digest in dict.fromkeys(digests) if digest not in have]

    def read(self, digests: Sequence[str]) -> dict[str, Array]:
        """Scores [N] of the digests that have a row."""
        wanted = list(dict.fromkeys(digests))
        found, missing = self.project.store.table_read(self.key, wanted)
        self.project.tell_notices()
        gone = {str(row) for row in missing}
        rows = [digest for digest in wanted if digest not in gone]
        return dict(zip(rows, found.get("scores", ()), strict=True))

    def fill(
        self, queries: Sequence[Query], compute: Callable[[list[Query]], Array], part: int
    ) -> dict[str, Array]:
        """Scores of every query; what is missing is computed and published `part` queries at a time."""
        unique = {query.digest: query for query in queries}
        rows = self.read(list(unique))
        left = [query for digest, query in unique.items() if digest not in rows]
        for start in range(0, len(left), part):
            some = left[start : start + part]
            fresh = compute(some).astype(np.float32)
            digests = [query.digest for query in some]
            if not self.project.store.read_only:
                self.project.store.table_publish(self.key, self.spec, digests, {"scores": fresh}, {})
                self.project.store.table_compact(self.key)
            rows |= dict(zip(digests, fresh, strict=True))
        return rows


def _but_compute(spec: Mapping[str, Any]) -> dict[str, Any]:
    params = {name: value for name, value in spec.get("params", {}).items() if name != "compute"}
    return {**spec, "params": params}
