"""Images unlike the training data, of which no verdict holds: what training images look like to a full model.

Both are kept in the store: the space of their features, once for a model, and the distance of every query.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from guda_cli.attribution import unlikeness
from guda_cli.attribution.aggregate import evenly
from guda_cli.attribution.unlikeness import Space
from guda_cli.data.dataset import Mask
from guda_cli.data.images import pixels_digests
from guda_cli.data.queries import Query
from guda_cli.diffusion.schedule import Array
from guda_cli.jsonable import canonical
from guda_cli.store import ActionRecord
from guda_cli.workflow.keys.operations import DISTANCES, FAMILIAR, Action, model_blobs, table_spec
from guda_cli.workflow.models.jobs import LazyJobs
from guda_cli.workflow.project.compute import looked_at_in
from guda_cli.workflow.project.project import Job, Made, Project
from guda_cli.workflow.scoring import calibrating
from guda_cli.workflow.scoring.run import BLOCK
from guda_cli.workflow.scoring.stored_arrays import pack, unpack
from guda_cli.workflow.scoring.training_queries import training_queries

TIMES = 5  # as many training images as verdicts are calibrated on, that those among them
STRANGE = 0.02  # of training images would be called unlike themselves
ENOUGH = 2 / STRANGE  # held-out images from which on queries are judged by these alone, which no training saw
FORWARDS = 4  # an image, each with its own noise


class _Known(NamedTuple):
    """The space, the distances of the images it was made of by their digest, and those that judge [n].

    `table` (key and spec) takes queries' distances; None where the store has none and cannot be written.
    """

    space: Space
    distances: dict[str, float]
    judging: Array
    table: tuple[str, dict[str, Any]] | None


class Strangers:
    """Which queries of a full model are unlike its training data; without `jobs` as far as is known."""

    def __init__(self, project: Project, full: ActionRecord, jobs: LazyJobs | None = None) -> None:
        self.project, self.full, self.jobs = project, full, jobs
        self.forwards = 0

    @property
    def action(self) -> Action:
        """Looking at the training images."""
        project, wanted = self.project, self.project.recipe.score.calibration
        told = project.family.told(project.recipe)
        params = {"calibration": wanted, "images": TIMES * wanted, "told": told, "seed": 0}
        params["dtype"] = looked_at_in(project.recipe)
        inputs = {"dataset": project.data.blob, **model_blobs(self.full)}
        inputs |= project.data.held_out if calibrating.held_out(project) else {}
        forwards = float(FORWARDS * min(TIMES * wanted, project.data.images))
        return Action(FAMILIAR, params, inputs, "look of the training images", forwards=forwards)

    @property
    def known(self) -> bool:
        """Whether the training images have been looked at."""
        return self.project.store.lookup(self.action.key) is not None

    def p_values(self, queries: Sequence[Query]) -> Array:
        """Of each query [Q]: the share of images like the training data that lie as far off, or farther.

        What is not in the store is worked out by the full model.
        """
        known, found = self._known, self._stored(queries)
        missing = {query.digest: query for query in queries if query.digest not in found}
        if missing:
            fresh = known.space.distances(self._features(list(missing.values())))
            self._publish(list(missing), fresh)
            found |= dict(zip(missing, fresh.tolist(), strict=True))
        return unlikeness.p_values(known.judging, np.array([found[query.digest] for query in queries]))

    def stored(self, queries: Sequence[Query]) -> Array | None:
        """The same from what the store has, NaN where that lacks a query; None without the space."""
        if not self.known:
            return None
        found = self._stored(queries)
        far = np.array([found.get(query.digest, np.nan) for query in queries])
        return np.where(np.isnan(far), np.nan, unlikeness.p_values(self._known.judging, far))

    def strange(self, p: Array) -> Mask:
        """Which p-values say so: STRANGE at most, or where images are few the least there is."""
        return np.asarray(p <= max(STRANGE, 1.0 / (1.0 + len(self._known.judging))))

    def missing(self, queries: Sequence[Query]) -> int:
        """How many images have no distance yet."""
        digests = {query.digest for query in queries}
        if not self.known:
            return len(digests)
        rows = self.project.store.table_rows(self._known.table[0]) if self._known.table else set()
        return len(digests - rows - self._known.distances.keys())

    # -- the training images -----------------------------------------------------------------------

    @cached_property
    def _known(self) -> _Known:
        project, job = self.project, Job(self.action, self._made)
        record = project.store.lookup(job.action.key)
        table = None
        if record is None and project.store.read_only:
            outputs: Mapping[str, bytes] = job.make().outputs
        else:
            if record is None or self.jobs is not None:
                record = project.ensure(job)  # which also knows how to make damaged parts again
            outputs = {name: project.read(record, name) for name in record.outputs}
            table = table_spec(DISTANCES, {}, {"space": record.outputs["space"], **model_blobs(self.full)})
        arrays, images = unpack(outputs["space"]), json.loads(outputs["images"])
        distances = dict(zip(images, arrays["distances"].tolist(), strict=True))
        judging = arrays["distances"][arrays["judging"].astype(bool)]
        return _Known(Space.of(arrays), distances, judging, table)

    def _made(self) -> Made:
        queries, members, held = self._images()
        with self.project.console.progress(self.action.what, FORWARDS * len(queries), unit="forward") as bar:
            features = self._features(queries, bar.advance)
        distances = unlikeness.left_out(features, members)
        judging = held if held.sum() >= ENOUGH else np.ones_like(held)
        arrays = {**unlikeness.fit(features, members).arrays, "distances": distances}
        made = {
            "space": pack({**arrays, "judging": judging.astype(np.uint8)}),
            "images": canonical([query.digest for query in queries]),
        }
        return Made(made, {"images": len(queries), "forwards": FORWARDS * len(queries)})

    def _images(self) -> tuple[list[Query], Mask, Mask]:
        """The images that verdicts are calibrated on and more training images; members [n, G]; held out [n].

        Held-out images are not among those that training saw, so they are looked at beside these.
        """
        project, data = self.project, self.project.dataset()
        calibrated, held = calibrating.images(project), calibrating.held_out(project)
        assert calibrated is not None
        first = {q.digest: own for q, own in zip(calibrated.queries, calibrated.groups, strict=True)}
        every = pixels_digests(data.images)
        chosen = evenly(data.membership, TIMES * project.recipe.score.calibration, every)
        more = {query.digest: (query, i) for query, i in zip(
            training_queries(project, chosen.tolist()), chosen.tolist(), strict=True
        ) if query.digest not in first}  # fmt: skip
        queries = [*calibrated.queries, *(query for query, _ in more.values())]
        own = [[name in groups for name in data.groups] for groups in first.values()]
        members = np.array([*own, *(data.membership[i] for _, i in more.values())], dtype=np.bool_)
        return queries, members, np.arange(len(queries)) < (len(first) if held else 0)

    # -- queries -----------------------------------------------------------------------------------

    def _stored(self, queries: Sequence[Query]) -> dict[str, float]:
        """Distances by digest; those of the images that the space was made of are without their own fold."""
        known, table = self._known.distances, self._known.table
        found = {query.digest: known[query.digest] for query in queries if query.digest in known}
        wanted = list(dict.fromkeys(q.digest for q in queries if q.digest not in found))
        if not wanted or table is None:
            return found
        arrays, missing = self.project.store.table_read(table[0], wanted)
        self.project.tell_notices()
        gone = {str(row) for row in missing}
        rows = [digest for digest in wanted if digest not in gone]
        return found | dict(zip(rows, np.asarray(arrays.get("distance", ())).tolist(), strict=True))

    def _publish(self, digests: Sequence[str], distances: Array) -> None:
        store, table = self.project.store, self._known.table
        if table is not None and not store.read_only:
            key, spec = table
            store.table_publish(key, spec, digests, {"distance": distances}, {})
            store.table_compact(key)

    def _features(self, queries: Sequence[Query], advance: Callable[[int], None] | None = None) -> Array:
        from guda_cli.workflow.scoring.terms import Engine

        assert self.jobs is not None, "only asked for what the store has"
        engine = Engine(self.jobs.models(self.full), 0, self.jobs.compute)
        self.forwards += FORWARDS * sum(len(query.conditions) for query in queries)
        parts = []
        for start in range(0, len(queries), BLOCK):
            part = queries[start : start + BLOCK]
            parts.append(engine.features(self.full, part, FORWARDS))
            if advance:
                advance(FORWARDS * len(part))
        return np.concatenate(parts)
