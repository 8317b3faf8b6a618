"""Which images have been scored: their pixels and names, kept so that a report can show them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from guda_cli.data import origins
from guda_cli.data.dataset import Pixels
from guda_cli.data.queries import Query
from guda_cli.errors import CorruptError
from guda_cli.phrases import plural
from guda_cli.store import ActionRecord
from guda_cli.workflow.keys.operations import Action
from guda_cli.workflow.project.project import Job, Made, Project
from guda_cli.workflow.scoring.counterfactuals import Counterfactuals


def remember(
    project: Project,
    found: Counterfactuals,
    grid: Mapping[str, Any],
    compute: Mapping[str, Any],
    queries: Sequence[Query],
    facts: Mapping[str, Any],
) -> None:
    """Record that `queries` were scored; does nothing in a read-only store.

    `facts` say how many images, and the seconds and network forwards they took.
    """
    if project.store.read_only or not queries:
        return
    listing = [[query.digest, query.name, *_origin_entry(query)] for query in queries]
    seen = hashlib.sha256(json.dumps(listing, ensure_ascii=True).encode()).hexdigest()
    params = {"method": found.method, "grid": dict(grid), "compute": dict(compute), "queries": seen}
    inputs = {"full": found.full.outputs["weights"]}
    inputs |= {
        f"without {name}": record.outputs["weights"] for name, record in found.records().items() if name
    }
    action = Action("score", params, inputs, f"scores of {plural(len(queries), 'image', 'images')}")
    project.ensure(Job(action, lambda: Made({"queries": pack(queries)}, facts)))


def recall(project: Project, record: ActionRecord) -> list[Query]:
    """The queries of a score record; none where they are damaged, which `losses` tells of."""
    try:
        return unpack(project.read(record, "queries"))
    except CorruptError:
        return []


def images(project: Project, records: Iterable[ActionRecord]) -> dict[str, Query]:
    """The queries of score records by digest, each under the name it was last scored by."""
    queries: dict[str, Query] = {}
    for query in (query for record in records for query in recall(project, record)):
        known = queries.get(query.digest)
        origin = query.origin or (known.origin if known else None)  # a copy may have lost it
        queries[query.digest] = replace(query, origin=origin)
    return queries


def by_name(queries: Iterable[Query], pixels: Collection[str] | None = None) -> list[Query]:
    """Queries in order of name; of those digests of pixels, where they are given."""
    wanted = (query for query in queries if pixels is None or query.pixels_digest in pixels)
    return sorted(wanted, key=lambda query: query.name)


def pack(queries: Sequence[Query]) -> bytes:
    """Queries as one safetensors blob, all but the pixels in its one metadata entry."""
    from safetensors.numpy import save

    listing = json.dumps([_entry(query) for query in queries], ensure_ascii=True)
    # safetensors writes memory as it lies
    pixels = np.ascontiguousarray(np.stack([query.pixels for query in queries]))
    return bytes(save({"pixels": pixels}, {"queries": listing}))


def unpack(data: bytes) -> list[Query]:
    """The inverse of `pack`."""
    from safetensors.numpy import load

    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    entries = json.loads(header["__metadata__"]["queries"])
    return [_query(entry, pixels) for entry, pixels in zip(entries, load(data)["pixels"], strict=True)]


def _entry(query: Query) -> list[Any]:
    """Name, digest of the pixels, class, prompts, origin; what is missing at the end is left out."""
    entry = [query.name, query.pixels_digest, query.condition, list(query.prompts), *_origin_entry(query)]
    while entry[-1] in (None, []):
        entry.pop()
    return entry


def _origin_entry(query: Query) -> list[Any]:
    return [[query.origin.text, query.origin.condition]] if query.origin else []


def _query(entry: list[Any], pixels: Pixels) -> Query:
    name, digest, condition, prompts, origin = entry + [None] * (5 - len(entry))
    return Query(
        name, pixels, digest, condition, tuple(prompts or ()), origins.parse(*origin) if origin else None
    )
