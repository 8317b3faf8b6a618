"""Tables: rows of arrays, kept in immutable segments that are only ever added and merged.

A table is a folder tables/<table>/ with table.json (its spec) and one record per segment, which lists
the rows; the segment itself is a blob. numpy and h5py are imported where arrays are touched, so that
listing needs neither.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guda_cli.store import segments
from guda_cli.store.blobs import Blobs
from guda_cli.store.crashpoints import point
from guda_cli.store.errors import CorruptBlob, MissingBlob, StoreError
from guda_cli.store.files import guarded, listing, unlink
from guda_cli.store.keys import canonical_json, check_digest, is_digest
from guda_cli.store.layout import Layout

if TYPE_CHECKING:
    from guda_cli.store.segments import Arrays

# Nanoseconds after which another change of a folder shows in its time; the same for times in whole seconds.
_SETTLED, _SETTLED_COARSE = 100_000_000, 2_500_000_000

Row = str
"""The name of a row: the hexadecimal digest of a query."""


class Tables:
    """The tables of a store."""

    def __init__(self, layout: Layout, blobs: Blobs) -> None:
        self._layout = layout
        self._blobs = blobs
        self._looked: dict[str, tuple[int, dict[str, dict[str, Any]]]] = {}

    def folder(self, table: str) -> Path:
        """The folder of a table."""
        return self._layout.folder("tables") / check_digest(table, "table key")

    def names(self) -> list[str]:
        """Keys of all tables."""
        folders = listing(self._layout.folder("tables"))
        return [path.name for path in folders if is_digest(path.name) and listing(path)]

    def spec(self, table: str) -> dict[str, Any] | None:
        """What the table was declared to be; None when unknown, or another's (then quarantined)."""
        path = self.folder(table) / "table.json"
        body = self._layout.load_lasting("table", path)
        if body is None:
            return None
        spec = body.get("spec")
        if body.get("table") != table or not isinstance(spec, dict):
            self._layout.quarantine("table", path, "it is not the record its name says")
            return None
        return spec

    def listed(self, table: str) -> list[str]:
        """Digests of the segments that have a record, intact or not."""
        try:
            names = sorted(os.listdir(self.folder(table)))  # noqa: PTH208 - read often: names are enough
        except (FileNotFoundError, NotADirectoryError):
            return []
        return [name[:-5] for name in names if name.endswith(".json") and is_digest(name[:-5])]

    def segments(self, table: str) -> dict[str, dict[str, Any]]:
        """Records of the segments by blob digest, in the digests' order; damaged ones are quarantined."""
        self._layout.hold(table)
        folder, looked = self.folder(table), time.time_ns()
        changed = _changed(folder)
        known = self._looked.get(table)
        if known is not None and known[0] == changed:
            return known[1]
        found = {}
        for digest in self.listed(table):
            path = folder / f"{digest}.json"
            body = self._layout.load_lasting("segment", path)
            if body is None:
                continue
            if body.get("table") != table or body.get("blob") != digest or not _well_formed(body):
                self._layout.quarantine("segment", path, "it is not the record its name says")
                continue
            found[digest] = body
        coarse = changed % 1_000_000_000 == 0
        if changed and looked - changed > (_SETTLED_COARSE if coarse else _SETTLED):
            self._looked[table] = changed, found
        return found

    def rows(self, table: str) -> set[Row]:
        """Names of the rows the table holds."""
        found: set[Row] = set()
        for digest, record in self.segments(table).items():
            if self._blobs.has(digest):
                found.update(record["rows"])
        return found

    def publish(
        self,
        table: str,
        spec: dict[str, Any],
        rows: Sequence[Row],
        arrays: Mapping[str, Any],
        attrs: dict[str, Any],
    ) -> str:
        """Add a segment; the digest of its blob."""
        self._layout.require_writable("writing a table")
        checked = segments.check(rows, arrays)
        self._declare(table, spec)
        expected = segments.schema(checked)
        for record in self.segments(table).values():
            if record["arrays"] != expected:
                raise ValueError(f"table {table[:12]} holds {record['arrays']}, not {expected}")
        return self._add(table, rows, checked, attrs)

    def read(self, table: str, rows: Sequence[Row]) -> tuple[Arrays, list[Row]]:
        """Arrays of the rows that are there, in the order asked for, and the names of those that are not."""
        import numpy as np

        wanted = list(dict.fromkeys(rows))
        unusable: set[str] = set()
        while (parts := self._collect(table, wanted, unusable)) is None:
            pass  # a segment went away or bad under the reader; the next look is without it
        place = {row: (index, at) for index, (names, _) in enumerate(parts) for at, row in enumerate(names)}
        found = [row for row in rows if row in place]
        missing = [row for row in wanted if row not in place]
        if not found:
            return {}, missing
        offsets = np.cumsum([0, *(len(names) for names, _ in parts)])
        order = np.array([offsets[place[row][0]] + place[row][1] for row in found])
        names = parts[0][1].keys()
        return {name: np.concatenate([arrays[name] for _, arrays in parts])[order] for name in names}, missing

    def compact(self, table: str, *, above: int) -> bool:
        """Merge the segments into one if there are more than `above`; whether it was done."""
        import numpy as np

        self._layout.require_writable("merging a table")
        old = self.segments(table)
        if len(old) <= above or len(old) < 2:
            return False
        point("compact-before-merge")
        seen: set[Row] = set()
        parts: list[Arrays] = []
        names: list[Row] = []
        attrs: list[dict[str, Any]] = []
        for digest, record in old.items():
            content = self._open(table, digest, record)
            if content is None:
                continue
            held, arrays, attributes = content
            fresh = [at for at, row in enumerate(held) if row not in seen]
            seen.update(held)
            names += [held[at] for at in fresh]
            parts.append({name: array[fresh] for name, array in arrays.items()})
            attrs += attributes["merged"] if set(attributes) == {"merged"} else [attributes]
        if not names:
            return False
        _agree(table, parts)
        order = sorted(range(len(names)), key=names.__getitem__)
        merged = {name: np.concatenate([part[name] for part in parts])[order] for name in parts[0]}
        digest = self._add(table, [names[at] for at in order], merged, _merge_attrs(attrs))
        point("compact-after-merge")
        for other in old:
            if other != digest:
                self.forget_segment(table, other)
                point("compact-between-removals")
        return True

    def specs(self) -> dict[str, dict[str, Any]]:
        """Spec of every table that has a readable one, by its key; no segment is looked at."""
        found = {table: self.spec(table) for table in self.names()}
        return {table: spec for table, spec in found.items() if spec is not None}

    def summaries(self) -> list[dict[str, Any]]:
        """Key, spec, segments, rows and bytes of every table."""
        found = []
        for table in self.names():
            held = [digest for digest in self.segments(table) if self._blobs.has(digest)]
            size = sum(self._blobs.size(digest) for digest in held)
            summary = {"table": table, "spec": self.spec(table), "segments": len(held)}
            found.append({**summary, "rows": len(self.rows(table)), "bytes": size})
        return found

    def forget_segment(self, table: str, digest: str) -> None:
        """Remove the record of a segment; its blob stays until it is collected."""
        with guarded("removing a segment", self._layout.root):
            unlink(self.folder(table) / f"{check_digest(digest)}.json")

    def _declare(self, table: str, spec: dict[str, Any]) -> None:
        """Write table.json the first time, and hold later callers to it."""
        canonical = canonical_json(spec)
        found = self.spec(table)
        if found is None:
            body = {"table": table, "spec": spec}
            self._layout.publish_json("table", self.folder(table) / "table.json", body)
        elif canonical_json(found) != canonical:
            raise ValueError(f"table {table[:12]} was declared with another spec")

    def _add(self, table: str, rows: Sequence[Row], arrays: Arrays, attrs: dict[str, Any]) -> str:
        self._layout.hold(table)
        data = segments.encode(rows, arrays, attrs)
        digest = self._blobs.put_bytes(data)
        body = {
            "table": table,
            "blob": digest,
            "rows": list(rows),
            "arrays": segments.schema(arrays),
            "attrs": attrs,
        }
        self._layout.publish_json("segment", self.folder(table) / f"{digest}.json", body)
        if not self._blobs.touch(digest):  # a garbage collection took it before its record was there
            self._blobs.put_bytes(data)
        return digest

    def _collect(
        self, table: str, wanted: Sequence[Row], unusable: set[str]
    ) -> list[tuple[list[Row], Arrays]] | None:
        """Rows and arrays per segment, each row once.

        None when a segment turned out to be gone or bad: it is then in `unusable`, and its rows may be
        found elsewhere (in the segment it was merged into, say) by another look.
        """
        left = set(wanted)
        parts = []
        for digest, record in self.segments(table).items():
            here = [(at, row) for at, row in enumerate(record["rows"]) if row in left]
            if not here or digest in unusable:
                continue
            content = self._open(table, digest, record, [at for at, _ in here])
            if content is None:
                unusable.add(digest)
                return None
            held = [row for _, row in here]
            left.difference_update(held)
            parts.append((held, content[1]))
        _agree(table, [arrays for _, arrays in parts])
        return parts

    def _open(
        self, table: str, digest: str, record: dict[str, Any], wanted: Sequence[int] | None = None
    ) -> tuple[list[Row], Arrays, dict[str, Any]] | None:
        """The content of a segment; None when it is gone, corrupt or not what `record` lists.

        Then its record goes too.
        """
        try:
            path, memory = self._blobs.path(digest), self._layout.memory
            if not memory.most:
                content = segments.read(path, wanted)
            else:
                content = segments.picked(memory.large(path, segments.read), wanted)
            if _as_listed(content, record):
                return content
            reason = "its rows are not those of its blob"
        except MissingBlob:
            reason = "its blob is missing"
        except CorruptBlob:
            reason = "its blob is corrupt"
        except segments.UNREADABLE:
            reason = "it is not a segment"
        if os.path.lexists(file := self.folder(table) / f"{digest}.json"):
            self._layout.quarantine("segment", file, reason)
        return None

    def check(self, table: str, digest: str) -> None:
        """Compare the record of a segment with the segment itself; it is quarantined where they differ."""
        record = self.segments(table).get(digest)
        if record is not None:
            self._open(table, digest, record, ())


def _well_formed(body: dict[str, Any]) -> bool:
    """Whether a segment's record has rows, each once, and says what the arrays are."""
    rows, arrays = body.get("rows"), body.get("arrays")
    if not isinstance(rows, list) or not rows or not all(isinstance(row, str) and row for row in rows):
        return False
    return len(set(rows)) == len(rows) and isinstance(arrays, dict) and isinstance(body.get("attrs"), dict)


def _as_listed(content: segments.Content, record: dict[str, Any]) -> bool:
    """Whether a segment is what its record says of it."""
    rows, arrays, attrs = content
    listed = record["rows"], record["attrs"], record["arrays"]
    return listed == (rows, attrs, segments.schema(arrays))


def _changed(folder: Path) -> int:
    """When an entry was last added to a folder or taken out of it, in nanoseconds; 0 when there is none."""
    try:
        return os.stat(folder).st_mtime_ns  # noqa: PTH116
    except OSError:
        return 0


def _agree(table: str, parts: list[Arrays]) -> None:
    """Raise StoreError unless all parts hold the same arrays."""
    if len({canonical_json(segments.schema(part)) for part in parts}) > 1:
        raise StoreError(
            f"the segments of table {table[:12]} hold different arrays",
            why="two programs wrote it",
            fix="move its folder under tables/ away and compute it again",
        )


def _merge_attrs(attrs: list[dict[str, Any]]) -> dict[str, Any]:
    """Attributes of a merged segment: the common ones, or all different ones under `merged`."""
    distinct = {canonical_json(each): each for each in attrs}
    if len(distinct) == 1:
        return attrs[0]
    return {"merged": [distinct[text] for text in sorted(distinct)]}
