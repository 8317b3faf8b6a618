"""Another method's scores from a file, so that they join the tables."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from guda_cli.data.queries import Query, load_query
from guda_cli.errors import DataError, UsageError, unknown
from guda_cli.workflow import queries_store, removal
from guda_cli.workflow.actions import Action
from guda_cli.workflow.classes import conditions_for
from guda_cli.workflow.project import Job, Made, Project

COLUMNS = ("image", "group", "score")
LARGEST = 256 << 20  # bytes of a file of scores
Scores = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Imported:
    """What was taken over."""

    name: str
    images: int
    groups: int
    key: str

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def import_scores(project: Project, path: Path, name: str | None) -> Imported:
    """Store the scores in `path` (CSV or JSON: image, group, score) under `name`.

    An image is a path (from the file's folder or the current one), or the name of an image scored
    before. DataError for a file that cannot be used, UsageError for an unknown group.
    """
    full = project.require_full()
    name = name or path.stem
    table = _table(_rows(path), path)
    groups = sorted({group for scores in table.values() for group in scores})
    for group in groups:
        _check_group(group, project.data.counts, path)
    finder = _Finder(project, path)
    found = {image: finder.find(image) for image in table}
    digests: Scores = {found[image].digest: scores for image, scores in table.items()}
    unique = {query.digest: query for query in found.values()}
    body = json.dumps(digests, sort_keys=True).encode()
    queries = sorted(unique.values(), key=lambda query: query.digest)
    inputs = {"full": full.outputs["weights"], "dataset": project.data.blob}
    params = {"name": name, "scores": project.store.put_bytes(body)}
    action = Action("import", params, inputs, f"scores of {name}")
    made = Made(
        {"scores": body, "queries": queries_store.pack(queries)},
        {"images": len(digests), "groups": groups, "file": path.name},
    )
    record = project.ensure(Job(action, lambda: made))
    return Imported(name, len(digests), len(groups), record.key)


def _check_group(group: str, counts: Mapping[str, int], path: Path) -> None:
    try:
        removal.of_groups([group], counts)
    except UsageError as err:
        raise UsageError(f"{path}: {err.message}", fix=err.fix) from None


def _rows(path: Path) -> list[Mapping[str, Any]]:
    """The file's entries, in order."""
    try:
        if path.stat().st_size > LARGEST:
            raise DataError(f"{path} is larger than {LARGEST >> 20} MB", why="this is not a file of scores")
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as err:
        raise DataError(f"cannot read {path}", why=getattr(err, "strerror", None) or str(err)) from None
    if text.lstrip()[:1] in ("[", "{"):
        return _from_json(text, path)
    reader = csv.DictReader(io.StringIO(text))
    missing = [column for column in COLUMNS if column not in (reader.fieldnames or ())]
    if missing:
        raise DataError(
            f"{path} has no column {', '.join(missing)}",
            why="a CSV file of scores starts with a line of column names",
            fix="columns image, group, score",
        )
    return list(reader)


def _from_json(text: str, path: Path) -> list[Mapping[str, Any]]:
    try:
        if text.lstrip().startswith("{") and "\n{" in text.strip():
            values: Any = [json.loads(line) for line in text.splitlines() if line.strip()]
        else:
            values = json.loads(text)
    except (ValueError, RecursionError) as err:
        raise DataError(f"{path} is not valid JSON", why=str(err)) from None
    if isinstance(values, dict):
        values = values.get("scores", [values])
    if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
        raise DataError(
            f"{path} is not a list of entries", fix='[{"image": ..., "group": ..., "score": ...}]'
        )
    return values


def _table(rows: Iterable[Mapping[str, Any]], path: Path) -> Scores:
    out: Scores = {}
    for number, row in enumerate(rows, 1):
        lacking = [column for column in COLUMNS if row.get(column) in (None, "")]
        if lacking:
            raise DataError(f"{path}: entry {number} has no {', '.join(lacking)}")
        try:
            value = float(row["score"])
        except (TypeError, ValueError):
            value = math.nan
        if not math.isfinite(value):
            raise DataError(f"{path}: entry {number}: {row['score']!r} is no finite number")
        scores = out.setdefault(str(row["image"]), {})
        if str(row["group"]) in scores:
            raise DataError(f"{path}: entry {number} repeats image {row['image']}, group {row['group']}")
        scores[str(row["group"])] = value
    if not out:
        raise DataError(f"{path} holds no score")
    return out


class _Finder:
    """Images of a file of scores: on disk, or known by name from an earlier `guda score`."""

    def __init__(self, project: Project, path: Path) -> None:
        self.project, self.folder = project, path.parent
        self.conditions = conditions_for(project, project.require_full(), None)
        self.known: dict[str, Query] = {}
        self.short: dict[str, set[str]] = {}
        for record in project.store.records("score"):
            for query in queries_store.recall(project, record):
                self.known[query.name] = query
                self.short.setdefault(Path(query.name).name, set()).add(query.name)

    def find(self, image: str) -> Query:
        """The query that `image` names; DataError with the nearest name when there is none."""
        channels, size, _ = self.project.data.shape
        if image in self.known:
            return self.known[image]
        for place in (self.folder / image, Path(image)):
            if place.is_file():
                return load_query(str(place), size, channels, self.conditions)
        names = self.short.get(Path(image).name, set())
        if len({self.known[name].digest for name in names}) == 1:
            return self.known[next(iter(names))]
        if names:
            raise DataError(f"several scored images are called {image}", fix="name them by their paths")
        raise DataError(unknown("image", image, self.short), fix="a path, or the name of a scored image")
