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

from guda_cli.attribution import methods
from guda_cli.data.queries import Query, load_query
from guda_cli.data.sources.rows import csv_header, text_of
from guda_cli.errors import DataError, UsageError, unknown
from guda_cli.plain_text import unicode, unspelled
from guda_cli.store import ActionRecord
from guda_cli.workflow.keys import removal
from guda_cli.workflow.keys.operations import Action
from guda_cli.workflow.project.project import Job, Made, Project
from guda_cli.workflow.scoring import remembered
from guda_cli.workflow.scoring.conditions import Given, conditions_for

COLUMNS = ("image", "group", "score")
QUERY = "query"  # what the tables that guda prints call the image
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
    before. Of several files under one name the last imported counts. DataError for a file that cannot be
    used, UsageError for an unknown group or a name that is a method's own.
    """
    full, name = project.require_full(), unicode(name or path.stem)
    if name in methods.names():
        raise UsageError(f"'{name}' is a method of its own", fix=f"--name other-{name}")
    table = _table(_rows(path), project.data.counts, path)
    finder = _Finder(project, full, path)
    queries: dict[str, Query] = {}
    digests: Scores = {}
    for image, scores in table.items():
        query = finder.find(image)
        known = digests.setdefault(query.digest, {})
        twice = sorted(known.keys() & scores.keys())
        if twice:
            raise DataError(f"{path}: {image} and another entry are one image, scored twice for {twice[0]}")
        known |= scores
        queries[query.digest] = query
    record = _publish(project, full, name, path, digests, queries)
    groups = {group for scores in digests.values() for group in scores}
    return Imported(name, len(digests), len(groups), record.key)


def _publish(
    project: Project,
    full: ActionRecord,
    name: str,
    path: Path,
    scores: Scores,
    queries: Mapping[str, Query],
) -> ActionRecord:
    """The record of these scores, the newest of its name."""
    body = json.dumps(scores, sort_keys=True).encode()
    inputs = {"full": full.outputs["weights"], "dataset": project.data.blob}
    params = {"name": name, "scores": project.store.put_bytes(body)}
    action = Action("import", params, inputs, f"scores of {name}")
    of_name = [r for r in project.store.records("import") if r.params["name"] == name and r.inputs == inputs]
    if of_name and of_name[-1].key != action.key:
        project.store.forget(action.key)  # imported before the last one: it is to be the newest
    packed = remembered.pack([queries[digest] for digest in sorted(queries)])
    made = Made({"scores": body, "queries": packed}, {"images": len(scores), "file": path.name})
    return project.ensure(Job(action, lambda: made))


def _rows(path: Path) -> list[Mapping[str, Any]]:
    """The file's entries, in order."""
    try:
        if path.stat().st_size > LARGEST:
            raise DataError(f"{path} is larger than {LARGEST >> 20} MB", why="this is not a file of scores")
        text = text_of(path.read_bytes(), str(path))
    except OSError as err:
        raise DataError(f"cannot read {path}", why=err.strerror or str(err)) from None
    if text.lstrip()[:1] in ("[", "{"):
        return _from_json(text, path)
    _, mark, before = csv_header(text, str(path), (*COLUMNS[:1], QUERY))
    table = io.StringIO(text.partition("\n")[2] if before else text, newline="")
    reader = csv.DictReader(table, skipinitialspace=True, delimiter=mark)
    try:
        rows: list[Mapping[str, Any]] = list(reader)
    except csv.Error as err:
        raise DataError(f"{path} is not valid CSV", why=str(err)) from None
    rows = [_as_image(row) for row in rows]
    missing = [column for column in COLUMNS if column not in (reader.fieldnames or ())]
    if missing == ["image"] and QUERY in (reader.fieldnames or ()):
        missing = []
    if missing:
        raise DataError(
            f"{path} has no column {', '.join(missing)}",
            why="a CSV file of scores starts with a line of column names",
            fix="columns image, group, score",
        )
    return _of_one_method(rows, path)


def _as_image(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """A row of `guda score --csv` under the names that this file's columns have."""
    return {**row, "image": row[QUERY]} if "image" not in row and QUERY in row else row


def _of_one_method(rows: list[Mapping[str, Any]], path: Path) -> list[Mapping[str, Any]]:
    """DataError where rows are several methods', as `guda score --method A,B` prints them."""
    found = sorted({str(row["method"]) for row in rows if row.get("method")})
    if len(found) > 1:
        raise DataError(
            f"{path} has the scores of several methods: {', '.join(found[:5])}", fix="one file a method"
        )
    return rows


def _from_json(text: str, path: Path) -> list[Mapping[str, Any]]:
    try:
        values: Any = json.loads(text)
    except (ValueError, RecursionError) as err:
        try:  # an object a line
            values = [json.loads(line) for line in text.splitlines() if line.strip()]
        except (ValueError, RecursionError):
            raise DataError(f"{path} is not valid JSON", why=str(err)) from None
    if isinstance(values, dict):
        values = [values] if "image" in values else values.get("scores", [values])
    if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
        raise DataError(
            f"{path} is not a list of entries", fix='[{"image": ..., "group": ..., "score": ...}]'
        )
    return _of_one_method([entry for value in values for entry in _entries(value)], path)


def _entries(value: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """A document of `guda score --json` as one entry a group; an entry as it is."""
    scores = value.get("scores")
    if "image" not in value or not isinstance(scores, list):
        return [value]
    about = {"image": value["image"], "method": value.get("method")}
    return [{**about, **score} if isinstance(score, dict) else about for score in scores]


def _table(rows: Iterable[Mapping[str, Any]], counts: Mapping[str, int], path: Path) -> Scores:
    """Scores by image as named in the file, and group; each entry checked."""
    out: Scores = {}
    for number, row in enumerate(rows, 1):
        lacking = [column for column in COLUMNS if row.get(column) in (None, "")]
        if lacking:
            raise DataError(f"{path}: entry {number} has no {', '.join(lacking)}")
        image, value = str(row["image"]), _number(row["score"])
        if not math.isfinite(value):
            raise DataError(f"{path}: entry {number}: {str(row['score'])[:80]!r} is no finite number")
        try:
            group = removal.of_groups([str(row["group"])], counts)[0].name
        except UsageError as err:
            raise DataError(f"{path}: entry {number}: {err.message}", fix=err.fix) from None
        scores = out.setdefault(image, {})
        if group in scores:
            raise DataError(f"{path}: entry {number} repeats image {image}, group {group}")
        scores[group] = value
    if not out:
        raise DataError(f"{path} holds no score")
    return out


def _number(value: Any) -> float:
    """`value` as a number, NaN where it is none."""
    try:
        return math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan


class _Finder:
    """Images of a file of scores: on disk, or known by name from an earlier `guda score`."""

    def __init__(self, project: Project, full: ActionRecord, path: Path) -> None:
        self.project, self.folder = project, path.parent
        self.conditions = conditions_for(project, full, Given())
        self.known: dict[str, Query] = {}
        self.short: dict[str, set[str]] = {}
        for record in project.store.records("score"):
            if record.inputs["full"] != full.outputs["weights"]:
                continue
            for query in remembered.recall(project, record):
                for name in (query.spelled, query.name):  # as reports have it, and as it is
                    self.known[name] = query
                    self.short.setdefault(Path(name).name, set()).add(name)

    def find(self, image: str) -> Query:
        """The query that `image` names; DataError with the nearest name when there is none."""
        channels, size, _ = self.project.data.shape
        if image in self.known:
            return self.known[image]
        as_written = unspelled(image)
        for place in (self.folder / image, Path(image), self.folder / as_written, Path(as_written)):
            if _is_file(place):
                return load_query(str(place), size, channels, self.conditions)
        names = self.short.get(Path(image).name, set())
        if len({self.known[name].digest for name in names}) == 1:
            return self.known[next(iter(names))]
        if names:
            raise DataError(f"several scored images are called {image}", fix="name them by their paths")
        raise DataError(unknown("image", image, self.short), fix="a path, or the name of a scored image")


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name too long for the file system
        return False
