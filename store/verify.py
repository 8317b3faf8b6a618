"""Check every byte of a store."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from guda_cli.store.actions import Actions
from guda_cli.store.blobs import Blobs
from guda_cli.store.documents import Documents, Pins
from guda_cli.store.errors import CorruptBlob, MissingBlob
from guda_cli.store.files import size_of
from guda_cli.store.layout import Layout
from guda_cli.store.states import States
from guda_cli.store.tables import Tables

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class CorruptEntry:
    """A corrupt blob, and the action keys and tables it belonged to."""

    digest: str
    actions: list[str]
    tables: list[str]


@dataclass(frozen=True)
class MissingOutput:
    """An output (`name`) of an action, or a segment of a table, whose blob is not in the store."""

    owner: str
    name: str
    digest: str


@dataclass
class VerifyReport:
    """What verify found: blobs checked and their bytes, and everything that was not as it should be.

    `damaged_records` names files by their path inside the store.
    """

    checked: int = 0
    bytes: int = 0
    corrupt: list[CorruptEntry] = field(default_factory=list)
    damaged_records: list[str] = field(default_factory=list)
    missing_outputs: list[MissingOutput] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """Whether nothing was wrong."""
        return not (self.corrupt or self.damaged_records or self.missing_outputs)


class Verifier:
    """One verification of a whole store."""

    def __init__(self, layout: Layout, blobs: Blobs, actions: Actions, tables: Tables) -> None:
        self._layout = layout
        self._blobs = blobs
        self._actions = actions
        self._tables = tables
        self._report = VerifyReport()
        self._by_action: dict[str, set[str]] = defaultdict(set)
        self._by_table: dict[str, set[str]] = defaultdict(set)

    def run(self, progress: Progress | None) -> VerifyReport:
        """Check records first (they say whose a blob is), then every blob."""
        known = len(self._layout.damaged)
        self._check_actions()
        self._check_tables()
        self._check_small()
        self._check_blobs(progress)
        found = dict.fromkeys(self._layout.damaged[known:])
        self._report.damaged_records = [name for name in found if not self._told_of(name)]
        return self._report

    def _check_actions(self) -> None:
        for key in self._actions.all_keys():
            record = self._actions.load(key)
            for name, digest in record.outputs.items() if record else ():
                self._by_action[digest].add(key)
                self._expect(key, name, digest)

    def _check_tables(self) -> None:
        for table in self._tables.names():
            self._tables.spec(table)
            for digest in self._tables.segments(table):
                self._by_table[digest].add(table)
                self._expect(table, "segment", digest)

    def _expect(self, owner: str, name: str, digest: str) -> None:
        if not self._blobs.has(digest):
            self._report.missing_outputs.append(MissingOutput(owner, name, digest))

    def _check_small(self) -> None:
        """States, documents, pins: reading one checks it."""
        states, documents = States(self._layout), Documents(self._layout)
        for key, path in states.all():
            states.check(key, path)
        for name in documents.names():
            documents.get(name)
        Pins(self._layout).all()
        for path in self._blobs.strangers():
            self._layout.quarantine("stranger", path, "it is not named like a blob")

    def _check_blobs(self, progress: Progress | None) -> None:
        sizes = [(digest, size_of(path) or 0) for digest, path in self._blobs.all()]
        total = sum(size for _, size in sizes)
        for digest, size in sizes:
            try:
                self._blobs.check(digest)
                for table in sorted(self._by_table.get(digest, ())):
                    self._tables.check(table, digest)
            except MissingBlob:
                continue  # collected meanwhile by another process
            except CorruptBlob:
                self._corrupt(digest)
            self._report.checked += 1
            self._report.bytes += size
            if progress is not None:
                progress(self._report.bytes, total)

    def _told_of(self, name: str) -> bool:
        """Whether a damaged file is told as the blob that it is, or whose record it is."""
        kind = name.partition("/")[0]
        return kind in ("blobs", "tables") and Path(name).stem in {e.digest for e in self._report.corrupt}

    def _corrupt(self, digest: str) -> None:
        tables = sorted(self._by_table[digest])
        self._report.corrupt.append(CorruptEntry(digest, sorted(self._by_action[digest]), tables))
        for table in tables:
            record = self._tables.folder(table) / f"{digest}.json"
            if not self._layout.read_only:
                self._layout.quarantine("segment", record, "its blob is corrupt")
