"""Garbage collection: mark from the roots, remove what is left over and old enough."""

from __future__ import annotations

import contextlib
import itertools
import os
import stat
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from guda_cli.store.actions import ActionRecord, Actions
from guda_cli.store.blobs import Blobs
from guda_cli.store.crashpoints import point
from guda_cli.store.documents import Pins
from guda_cli.store.files import fsync_folder, guarded, listing, unlink
from guda_cli.store.keys import canonical_json
from guda_cli.store.layout import Layout
from guda_cli.store.leases import Leases, began_after, running
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


Wanted = Callable[[Mapping[str, Any]], tuple[Iterable[str], Iterable[str] | None] | None]
"""From what a live process wants to keys and tables; None where that cannot be told."""
_SLICE = 64  # files that are looked at and removed under one lock


@dataclass
class _Marks:
    """What stays: names of actions (with a record or without one yet), blobs and tables."""

    keys: set[str]
    blobs: set[str]
    tables: set[str]
    seeds: set[str] = field(default_factory=set)
    notes: set[bytes] = field(default_factory=set)
    read: set[str] = field(default_factory=set)
    """Records whose outputs are marked, as they stay for whatever reason."""
    everything: bool = False


class Collector:
    """One garbage collection."""

    def __init__(
        self, layout: Layout, blobs: Blobs, actions: Actions, tables: Tables, wanted: Wanted | None = None
    ) -> None:
        self._layout = layout
        self._blobs = blobs
        self._actions = actions
        self._tables = tables
        self._wanted = wanted
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
        self._sweep_records(sweep, marks, report)
        if not dry_run:
            self._sync_records()
        # A record that is too young to go keeps what it lists.
        self._mark_survivors(marks, {each.name for each in report.records})
        for part in _slices(self._blobs.all()):
            with self._looking_again(marks, sweep):
                if not dry_run:
                    # Of a process that has ended since: its lease says no more what it has published.
                    self._mark_survivors(marks, set())
                for digest, path in part:
                    if digest not in marks.blobs and not marks.everything:
                        sweep.remove(report.blobs, digest, path)
        for part in _slices(States(self._layout).all()):
            with self._looking_again(marks, sweep):
                for key, path in part:
                    # A state is of no use once its action is done, whoever wants the action.
                    if key not in marks.keys or self._done(key):
                        sweep.remove(report.states, key, path)
        self._sweep_temporary(sweep, report)
        return report

    def _done(self, key: str) -> bool:
        record = self._actions.load(key)
        return record is not None and not self._actions.missing(record)

    def _sync_records(self) -> None:
        """A power cut must not take back that records went, whoever removed them, but not that blobs did."""
        tables = [path for path in listing(self._layout.folder("tables")) if path.is_dir()]
        for folder in (self._layout.folder("actions"), *tables):
            with guarded("collecting garbage", self._layout.root), contextlib.suppress(FileNotFoundError):
                fsync_folder(folder)

    def _sweep_records(self, sweep: _Sweep, marks: _Marks, report: GcReport) -> None:
        """Remove records of actions and of segments."""
        found = [(key, self._actions.path(key)) for key in self._actions.all_keys() if key not in marks.keys]
        for part in _slices(found):
            with self._looking_again(marks, sweep):
                for key, path in part:
                    if key not in marks.keys and not marks.everything:
                        sweep.remove(report.records, key, path)
        unmarked = [table for table in self._tables.names() if table not in marks.tables]
        for table in unmarked:
            with self._looking_again(marks, sweep):
                for path in listing(self._tables.folder(table)):
                    if table not in marks.tables and not marks.everything:
                        sweep.remove(report.records, f"{table}/{path.name}", path)

    def _sweep_temporary(self, sweep: _Sweep, report: GcReport) -> None:
        """Remove temporary files that no live process writes, and leases that none holds."""
        pids = {lease["pid"] for lease in self._leases.live()}
        for path in self._layout.temporary():
            if not _written_by(path, pids):
                sweep.remove(report.temp, path.name, path)
        for path in self._leases.dead():
            sweep.count(report.temp, path.name, path)
            if not sweep.dry_run:
                self._leases.sweep(path)

    @contextlib.contextmanager
    def _looking_again(self, marks: _Marks, sweep: _Sweep) -> Iterator[None]:
        """Nobody begins to use anything meanwhile; what others began to use since the last look stays."""
        if sweep.dry_run:
            yield
            return
        with self._layout.sweeping():
            self._mark_leases(marks)
            yield
        time.sleep(0)  # others wait

    def _mark(self, roots: Iterable[str], table_roots: Iterable[str] | None) -> _Marks:
        marks = _Marks(set(), set(), set(self._tables.names() if table_roots is None else table_roots))
        self._close(marks, {*roots, *Pins(self._layout).pinned()})
        self._mark_leases(marks)
        return marks

    def _mark_leases(self, marks: _Marks) -> None:
        """Mark what live processes other than this one use, as far as it is not marked yet."""
        own = self._layout.held.token if self._layout.held else None
        seeds: set[str] = set()
        for lease in self._leases.live():
            if own is None or lease.get("token") != own:
                seeds.update((lease["key"], *lease["holds"]))
                for note in lease["notes"]:
                    seeds |= self._noted(marks, note)
        fresh = seeds - marks.seeds
        if fresh:
            marks.seeds |= fresh
            marks.tables |= fresh
            self._close(marks, fresh)

    def _noted(self, marks: _Marks, note: Mapping[str, Any]) -> set[str]:
        """Keys that a process wants, by its own words."""
        try:
            line = canonical_json(dict(note))
        except (TypeError, ValueError):
            return set()
        if self._wanted is None or line in marks.notes:
            return set()
        marks.notes.add(line)
        found = self._wanted(note)
        if found is None:
            marks.everything = True
            return set()
        keys, tables = found
        marks.tables.update(self._tables.names() if tables is None else tables)
        return set(keys)

    def _mark_survivors(self, marks: _Marks, removed: set[str]) -> None:
        """Mark what records list that stay only because they are young, and all segments that stay."""
        for key in self._actions.all_keys():
            if key in marks.keys or key in marks.read or key in removed:
                continue
            if record := self._actions.load(key):
                marks.read.add(key)
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


def _slices(files: Iterable[tuple[str, Path]]) -> Iterator[list[tuple[str, Path]]]:
    """A few at a time: others wait while they are removed."""
    several = iter(files)
    while part := list(itertools.islice(several, _SLICE)):
        yield part


def _written_by(path: Path, pids: Collection[int | None]) -> bool:
    """Whether a temporary file is of a process that lives: here, or with a lease of its own elsewhere."""
    name = path.name.partition("-")[0]
    if not (name.isascii() and name.isdecimal() and len(name) < 11):
        return False
    pid = int(name)
    try:
        changed = path.lstat().st_mtime
    except OSError:
        return False
    if pid in pids:
        return True
    return os.name == "posix" and pid > 0 and running(pid) and not began_after(pid, changed)


class _Sweep:
    """Removes files, or only counts them; never one that is younger than the grace time."""

    def __init__(self, layout: Layout, dry_run: bool, before: float) -> None:
        self._layout = layout
        self.dry_run = dry_run
        self._before = before

    def count(self, into: list[Removed], name: str, path: Path) -> bool:
        """Note a file that is old enough; whether it was. A folder in a file's place is none."""
        try:
            # Looked at as late as can be: publishing makes what it reuses young.
            found = path.stat()
        except OSError:
            try:
                found = path.lstat()  # a link that leads nowhere
            except OSError:
                return False
        if found.st_mtime > self._before or stat.S_ISDIR(found.st_mode):
            return False
        into.append(Removed(name, found.st_size))
        return True

    def remove(self, into: list[Removed], name: str, path: Path) -> None:
        """Remove a file that is old enough."""
        if self.count(into, name, path) and not self.dry_run:
            with guarded("collecting garbage", self._layout.root):
                unlink(path)
            point("gc-between-removals")
