"""Garbage collection: mark from the roots, remove what is left over and old enough."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from guda_cli.store.actions import ActionRecord, Actions
from guda_cli.store.blobs import Blobs
from guda_cli.store.crashpoints import point
from guda_cli.store.documents import Pins
from guda_cli.store.files import guarded, listing, unlink
from guda_cli.store.layout import Layout
from guda_cli.store.leases import Leases
from guda_cli.store.states import States
from guda_cli.store.tables import Tables


@dataclass(frozen=True)
class Removed:
    """One thing that was removed, or would be: its name (key, digest or file) and its size."""

    name: str
    bytes: int


@dataclass
class GcReport:
    """What a collection removed, or with `dry_run` what it would remove."""

    dry_run: bool
    records: list[Removed] = field(default_factory=list)
    blobs: list[Removed] = field(default_factory=list)
    states: list[Removed] = field(default_factory=list)
    temp: list[Removed] = field(default_factory=list)

    @property
    def bytes(self) -> int:
        """Bytes removed in all."""
        return sum(each.bytes for kind in (self.records, self.blobs, self.states, self.temp) for each in kind)


@dataclass
class _Marks:
    """What stays: names of actions (with a record or without one yet), blobs and tables."""

    keys: set[str]
    blobs: set[str]
    tables: set[str]


class Collector:
    """One garbage collection."""

    def __init__(self, layout: Layout, blobs: Blobs, actions: Actions, tables: Tables) -> None:
        self._layout = layout
        self._blobs = blobs
        self._actions = actions
        self._tables = tables
        self._leases = Leases(layout)

    def run(
        self, roots: Iterable[str], table_roots: Iterable[str] | None, *, dry_run: bool, grace_seconds: float
    ) -> GcReport:
        """Mark and sweep. Records go before blobs, so that a crash leaves no record without its outputs."""
        if not dry_run:
            self._layout.require_writable("collecting garbage")
        marks = self._mark(roots, table_roots)
        report = GcReport(dry_run)
        sweep = _Sweep(self._layout, dry_run, time.time() - grace_seconds)
        for key in self._actions.all_keys():
            if key not in marks.keys:
                sweep.remove(report.records, key, self._actions.path(key))
        for table in self._tables.names():
            if table not in marks.tables:
                for path in listing(self._tables.folder(table)):
                    sweep.remove(report.records, f"{table}/{path.name}", path)
        # A record that is too young to go keeps what it lists.
        self._mark_survivors(marks, {each.name for each in report.records})
        for digest, path in self._blobs.all():
            if digest not in marks.blobs:
                sweep.remove(report.blobs, digest, path)
        for key, path in States(self._layout).all():
            # A state is of no use once its action is done, whoever wants the action.
            if key not in marks.keys or self._actions.lookup(key) is not None:
                sweep.remove(report.states, key, path)
        for path in self._layout.temporary():
            sweep.remove(report.temp, path.name, path)
        for path in self._leases.dead():
            sweep.count(report.temp, path.name, path)
            if not dry_run:
                self._leases.sweep(path)
        return report

    def _mark(self, roots: Iterable[str], table_roots: Iterable[str] | None) -> _Marks:
        leases = self._leases.live()
        seeds = {*roots, *Pins(self._layout).pinned(), *(lease["key"] for lease in leases)}
        for lease in leases:
            seeds.update(name for name in lease.get("holds", ()) if isinstance(name, str))
        tables = set(self._tables.names() if table_roots is None else table_roots)
        marks = _Marks(set(), set(), tables)
        self._close(marks, seeds)
        return marks

    def _mark_survivors(self, marks: _Marks, removed: set[str]) -> None:
        """Mark what records list that stay only because they are young, and all segments that stay."""
        for key in self._actions.all_keys():
            if key not in marks.keys and key not in removed and (record := self._actions.load(key)):
                marks.blobs.update(record.outputs.values())
        for table in self._tables.names():
            for digest in self._tables.segments(table):
                if f"{table}/{digest}.json" not in removed:
                    marks.blobs.add(digest)

    def _close(self, marks: _Marks, seeds: set[str]) -> None:
        """Mark the seeds and, along inputs, all that they were made from.

        A seed, like an input, may be an action key or a blob digest; a blob leads to the records that
        list it as an output, unless one of them stays anyhow: two actions may have made the same bytes.
        """
        records = {record.key: record for record in self._actions.records()}
        makers: dict[str, list[ActionRecord]] = {}
        for record in records.values():
            for digest in record.outputs.values():
                makers.setdefault(digest, []).append(record)
        todo, made = sorted(seeds), list[str]()
        seen: set[str] = set()
        while todo or made:
            if not todo:
                keys = [maker.key for maker in makers[made.pop()]]
                todo += keys if marks.keys.isdisjoint(keys) else []
                continue
            name = todo.pop()
            if name in seen:
                continue
            seen.add(name)
            marks.keys.add(name)
            marks.blobs.add(name)
            made += [name] if name in makers else []
            if name in records:
                marks.blobs.update(records[name].outputs.values())
                todo += records[name].inputs.values()


class _Sweep:
    """Removes files, or only counts them; never one that is younger than the grace time."""

    def __init__(self, layout: Layout, dry_run: bool, before: float) -> None:
        self._layout = layout
        self._dry_run = dry_run
        self._before = before

    def count(self, into: list[Removed], name: str, path: Path) -> bool:
        """Note a file that is old enough; whether it was."""
        try:
            # Looked at as late as can be: publishing makes what it reuses young.
            found = path.stat()
        except FileNotFoundError:
            return False
        if found.st_mtime > self._before:
            return False
        into.append(Removed(name, found.st_size))
        return True

    def remove(self, into: list[Removed], name: str, path: Path) -> None:
        """Remove a file that is old enough."""
        if self.count(into, name, path) and not self._dry_run:
            with guarded("collecting garbage", self._layout.root):
                unlink(path)
            point("gc-between-removals")
