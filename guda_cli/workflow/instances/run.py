"""One run of `guda score` with a rival method; torch only if something is missing."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from guda_cli.attribution import aggregate
from guda_cli.attribution.random_scores import random_scores
from guda_cli.data.queries import Query, load_queries
from guda_cli.diffusion.schedule import Array
from guda_cli.report.model import HIGHER, GroupScore, InstanceScore, QueryResult
from guda_cli.workflow import removal
from guda_cli.workflow.actions import Action
from guda_cli.workflow.classes import conditions_for
from guda_cli.workflow.instances.pool import Pool
from guda_cli.workflow.instances.settings import RANDOM, MethodSettings
from guda_cli.workflow.instances.store import Arrays, ScoreTable, pack, preparation, unpack
from guda_cli.workflow.lazy import LazyJobs
from guda_cli.workflow.plan import CACHED, TO_DO, Step
from guda_cli.workflow.project import Job, Made, Project
from guda_cli.workflow.queries_store import pack as pack_queries
from guda_cli.workflow.runs import BLOCK, BlockResult, known_compute, remember_compute
from store import ActionRecord

if TYPE_CHECKING:
    from guda_cli.workflow.compute import Compute
    from guda_cli.workflow.instances.engine import Engine

PART = 8  # queries published together: what a kill can cost


class InstanceRun:
    """Scores images by the training images that a method finds; groups are aggregated from these."""

    weighting = "none"

    def __init__(
        self,
        project: Project,
        method: MethodSettings,
        device: str,
        *,
        groups: Sequence[str] = (),
        condition: str | None = None,
        instances: int = 0,
    ) -> None:
        self.project, self.settings, self.device, self.instances = project, method, device, instances
        self.method, self.unit = method.method, f"{method.method} score"
        self.how = aggregate.parse_aggregation(method.aggregate)
        self.full = project.require_full()
        self.removals = removal.of_groups(list(groups) or list(project.data.counts), project.data.counts)
        self.conditions = conditions_for(project, self.full, condition)
        self.jobs = LazyJobs(project, self._setup)
        if self.full.operation == "train":
            self.jobs.full()
        self.warnings: list[str] = []
        self.forwards, self.images = 0.0, 0

    # -- what is scored ----------------------------------------------------------------------------

    def describe(self) -> str:
        """How to read the scores, in one line."""
        values = ", ".join(f"{k} {v}" for k, v in self.settings.values.items() if v is not None)
        name = self.settings.name if self.settings.encoder else f"{self.method} ({values})"
        over = f", {self.how} over a group's images" if self.settings.scores_images else ""
        return f"{name}{over}. {HIGHER}"

    def announce(self) -> None:
        """Nothing to warn of."""

    def summary(self) -> str:
        """What was computed."""
        if self.forwards == 0:
            return f"{self.images} images: no network was run"
        return f"{self.images} images: {self.forwards:,.0f} forward-equivalents"

    def context(self) -> dict[str, Any]:
        """What every JSON line says of how it was computed."""
        return {
            "method": self.method,
            "weighting": self.weighting,
            "unit": self.unit,
            "recipe": self.project.recipe.name,
            "settings": {**self.settings.values, "aggregate": str(self.how)},
            "models": {"full": self.full.outputs["weights"]},
            "warnings": self.warnings,
        }

    # -- running -----------------------------------------------------------------------------------

    def blocks(self, paths: Sequence[str]) -> Iterator[BlockResult]:
        """Score the images of `paths` in blocks; a bad file does not stop the others."""
        self._prepared  # noqa: B018 - before the queries' progress bar
        with self.project.console.progress(f"score: {self.method}", len(paths), unit="image") as bar:
            for start in range(0, len(paths), BLOCK):
                queries, bad = self._load(paths[start : start + BLOCK])
                bar.advance(len(bad))
                done = self._score(queries, bar.advance) if queries else []
                yield BlockResult(done, queries, bad)

    def plan(self, paths: Sequence[str]) -> list[Step]:
        """The preparation, and how many images have no scores yet."""
        queries, _ = self._load(paths)
        digests = [query.digest for query in queries]
        if self.method == RANDOM:
            return [Step("random scores", CACHED, "made up on the spot")]
        action = preparation(self.project, self.full, self.settings, 0.0)
        record = self.project.store.lookup(action.key)
        steps = [Step(action.what, CACHED if record else TO_DO, key=action.key, command="guda score")]
        missing = len(set(digests))
        if record is not None:
            missing = len(self._table(record, self._known_compute()).missing(digests))
        why = f"{missing} of {len(set(digests))} images" if missing else ""
        return [*steps, Step(f"{self.method} scores", TO_DO if missing else CACHED, why)]

    def _load(self, paths: Sequence[str]) -> tuple[list[Query], list[tuple[str, str]]]:
        channels, size, _ = self.project.data.shape
        return load_queries(paths, size, channels, self.conditions)

    def read(self, queries: list[Query]) -> list[QueryResult]:
        """Results of images scored before; those without a row are left out. Runs nothing."""
        rows: dict[str, Array] = {}
        if self.method != RANDOM:
            record = self.known_preparation()
            known = self._known_compute()
            rows = self._table(record, known).read([q.digest for q in queries]) if record else {}
            queries = [query for query in queries if query.digest in rows]
        return self._results(queries, rows) if queries else []

    def known_preparation(self) -> ActionRecord | None:
        """What was prepared earlier, if it was."""
        return self.project.store.lookup(preparation(self.project, self.full, self.settings, 0.0).key)

    def _score(self, queries: list[Query], advance: Callable[[int], None]) -> list[QueryResult]:
        started, before = time.monotonic(), self.forwards
        rows = {} if self.method == RANDOM else self._rows(queries, advance)
        out = self._results(queries, rows)
        facts = {
            "images": len(queries),
            "forwards": self.forwards - before,
            "wall_seconds": time.monotonic() - started,
        }
        self._remember(queries, facts)
        self.images += len(queries)
        return out

    def _results(self, queries: list[Query], rows: Mapping[str, Array]) -> list[QueryResult]:
        from guda_cli.data.similarity import nearest_groups

        names = [what.name for what in self.removals]
        if self.method == RANDOM:
            table = random_scores([q.digest for q in queries], names, int(self.settings.values["seed"]))
        else:
            scores = np.stack([rows[query.digest] for query in queries]).astype(np.float64)
            table = aggregate.group_scores(scores, self._members, self.how, groups=names)
        looks = nearest_groups(np.stack([query.pixels for query in queries]), self.project.dataset())
        return [
            self._result(query, table[i], names, looks[i], rows.get(query.digest))
            for i, query in enumerate(queries)
        ]

    def _rows(self, queries: list[Query], advance: Callable[[int], None]) -> dict[str, Array]:
        """Scores of training images for each query's digest: read where there, else computed."""
        known = self._table(self._prepared, self._known_compute())
        if not known.missing([query.digest for query in queries]):
            advance(len(queries))
            return known.read([query.digest for query in queries])

        def compute(some: list[Query]) -> Array:
            found, forwards = self._engine.scores(self._arrays, some)
            self.forwards += forwards
            advance(len(some))
            return found

        table = self._table(self._prepared, self.jobs.compute.key)
        wanted = [query.digest for query in queries]
        advance(len(queries) - len(table.missing(wanted)))
        with self.project.lease(table.key, f"scoring images by {self.method}"):
            return table.fill(queries, compute, PART)

    def _result(
        self, query: Query, scores: Array, names: list[str], looks: str, row: Array | None
    ) -> QueryResult:
        ranked = sorted(zip(names, scores.tolist(), strict=True), key=lambda item: (-item[1], item[0]))
        entries = tuple(GroupScore(name, score) for name, score in ranked)
        found = self._instances(row) if row is not None and self.instances else ()
        return QueryResult(
            query.name, query.digest, looks, query.pixels, entries, None,
            condition=query.condition, instances=found,
        )  # fmt: skip

    def _instances(self, row: Array) -> tuple[InstanceScore, ...]:
        data, out = self._pool.data, []
        for place in aggregate.top_instances(row[None], self.instances)[0]:
            i = int(self._pool.indices[place])
            groups = tuple(g for g, member in zip(data.groups, data.membership[i], strict=True) if member)
            out.append(InstanceScore(data.names[i], groups, float(row[place]), data.images[i]))
        return tuple(out)

    def _remember(self, queries: list[Query], facts: Mapping[str, Any]) -> None:
        """Record that these images were scored, and what it cost."""
        if self.project.store.read_only or not queries:
            return
        listing = json.dumps([[query.digest, query.name] for query in queries], ensure_ascii=True)
        params = {
            "method": self.method,
            "values": dict(self.settings.values),
            "queries": hashlib.sha256(listing.encode()).hexdigest(),
        }
        inputs = {"full": self.full.outputs["weights"], "dataset": self.project.data.blob}
        action = Action("score", params, inputs, f"{self.method} scores of {len(queries)} images")
        self.project.ensure(Job(action, lambda: Made({"queries": pack_queries(queries)}, facts)))

    # -- what is made once -------------------------------------------------------------------------

    @cached_property
    def _pool(self) -> Pool:
        values = self.settings.values
        return Pool.of(self.project.dataset(), values.get("per_group"), int(values.get("seed", 0)))

    @cached_property
    def _members(self) -> Any:
        return self._pool.members(self.removals)

    @cached_property
    def _prepared(self) -> ActionRecord | None:
        if self.method == RANDOM:
            return None
        action = preparation(self.project, self.full, self.settings, 0.0)

        def make() -> Made:
            engine = self._engine
            with self.project.console.progress(
                action.what, engine.expected_forwards(), unit="forward"
            ) as bar:
                done = engine.prepare(bar.advance)
            facts = {
                "name": self.settings.name,
                "forwards": done.forwards,
                "images": len(self._pool.indices),
                **done.facts,
            }
            return Made({"prepared": pack(done.arrays)}, facts)

        return self.project.ensure(Job(action, make))

    @cached_property
    def _arrays(self) -> Arrays:
        assert self._prepared is not None
        return unpack(self.project.read(self._prepared, "prepared"))

    def _table(self, record: ActionRecord | None, compute: Mapping[str, Any]) -> ScoreTable:
        assert record is not None
        return ScoreTable.of(self.project, self.full, self.settings, record.outputs["prepared"], compute)

    @cached_property
    def _engine(self) -> Engine:
        if self.method == "similarity":
            from guda_cli.workflow.instances.similarity import Similarity

            return Similarity(self._pool, self.settings.encoder, self.device)
        from guda_cli.workflow.instances.engines import Context, make

        models = self.jobs.models(self.full)
        return make(self.method, Context(models, self._pool, self.settings.values, self.jobs.compute))

    def _setup(self) -> Compute:
        return remember_compute(self.project, self.device)

    def _known_compute(self) -> Mapping[str, Any]:
        return known_compute(self.project, self.device)
