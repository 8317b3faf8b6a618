"""The store as the rest of the program sees it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from guda_cli.store.actions import ActionRecord, Actions, checked_outputs, now
from guda_cli.store.blobs import Blobs
from guda_cli.store.documents import Documents, Pins
from guda_cli.store.files import Buffer, listing
from guda_cli.store.layout import FOLDERS, Layout, open_layout
from guda_cli.store.leases import Leases
from guda_cli.store.states import States
from guda_cli.store.tables import Row, Tables

if TYPE_CHECKING:
    import numpy as np

    from guda_cli.store.gc import GcReport, Wanted
    from guda_cli.store.losses import Loss
    from guda_cli.store.verify import VerifyReport

T = TypeVar("T")


class Store:
    """Results by content and by lineage, in one folder that any number of processes may share.

    Open one with `Store.open`. `notices` collects sentences a user should see, such as that a corrupt
    file was quarantined.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._blobs = Blobs(layout)
        self._actions = Actions(layout, self._blobs)
        self._tables = Tables(layout, self._blobs)
        self._states = States(layout)
        self._documents = Documents(layout)
        self._pins = Pins(layout)
        self._leases = Leases(layout)

    @classmethod
    def open(cls, root: Path | str, *, create: bool = True) -> Store:
        """Open the store at `root`, making it when there is none and `create` is true.

        A folder that cannot be written is opened read-only. Raises StoreMissing, StoreFormatError, or
        StoreError when the folder holds something else.
        """
        return cls(open_layout(Path(root), create=create))

    @property
    def root(self) -> Path:
        """The folder of the store."""
        return self._layout.root

    @property
    def read_only(self) -> bool:
        """Whether writes raise StoreReadOnly."""
        return self._layout.read_only

    @property
    def notices(self) -> list[str]:
        """Sentences for the user, in the order they came up."""
        return self._layout.notices

    def require_writable(self, what: str) -> None:
        """Raise StoreReadOnly where nothing can be written: before a work that would be lost."""
        self._layout.require_writable(what)

    # Blobs

    def put_bytes(self, data: bytes) -> str:
        """Store bytes; their digest."""
        return self._blobs.put_bytes(data)

    def put_pieces(self, pieces: Iterable[Buffer]) -> str:
        """Store bytes of any size that come piece by piece: written and hashed in one go; their digest."""
        return self._blobs.put_pieces(pieces)

    def put_written(self, write: Callable[[Path], None]) -> str:
        """Store what `write` writes to the new file that it is given, of any size; its digest."""
        return self._blobs.put_written(write)

    def blob_path(self, digest: str) -> Path:
        """The file of a blob, checked once a process, for what is larger than memory; see `read_bytes`."""
        return self._blobs.path(digest)

    def begin_check(self, digest: str) -> None:
        """Hash a blob in a thread, if it is large and here, so that who asks for it later need not wait."""
        self._blobs.begin_check(digest)

    def opened(self, digest: str, make: Callable[[Path], T]) -> T:
        """What `make` (a function of a module) makes of a blob's file by mapping it; checked once a process.

        A process that runs many commands may keep it: it must not be changed. Errors as `read_bytes`.
        """
        return self._blobs.opened(digest, make)

    @property
    def temporary_folder(self) -> Path | None:
        """Where files without a name may be made on the store's own disk; None if it is read-only."""
        return None if self.read_only else self._layout.temp().parent

    def read_bytes(self, digest: str) -> bytes:
        """The bytes of a blob, checked; raises CorruptBlob or MissingBlob."""
        return self._blobs.read(digest)

    def parsed(self, digest: str, parse: Callable[[bytes], T]) -> T:
        """What `parse` (a function of a module) makes of a blob's bytes, checked; errors as `read_bytes`.

        A process that runs many commands may keep it (`memory`): it must not be changed.
        """
        return self._blobs.parsed(digest, parse)

    def has_blob(self, digest: str) -> bool:
        """Whether a blob is there, going by its name alone."""
        return self._blobs.has(digest)

    def blob_size(self, digest: str) -> int:
        """Bytes of a blob; raises MissingBlob."""
        return self._blobs.size(digest)

    # Actions

    def lookup(self, key: str) -> ActionRecord | None:
        """The record of an action if it can be reused: intact and with all outputs present."""
        return self._actions.lookup(key)

    def publish(
        self,
        key: str,
        *,
        operation: str,
        version: int,
        params: Mapping[str, Any],
        inputs: Mapping[str, str],
        outputs: Mapping[str, str],
        provenance: Mapping[str, Any],
    ) -> ActionRecord:
        """Record a finished action. The first usable record of a key stays, and is returned.

        Raises ValueError when the key does not fit, MissingBlob when an output is not stored yet.
        """
        parts = (operation, version, dict(params), dict(inputs), checked_outputs(outputs), dict(provenance))
        return self._actions.publish(ActionRecord(key, *parts, now()))

    def records(self, operation: str | None = None) -> Iterator[ActionRecord]:
        """All intact records (of one operation), oldest first."""
        return self._actions.records(operation)

    def resolve(self, prefix: str) -> ActionRecord:
        """The one record whose key begins with `prefix` (four digits at least)."""
        return self._actions.resolve(prefix)

    def recorded(self, key: str) -> ActionRecord | None:
        """The record of an action if it is intact, its outputs present or not."""
        return self._actions.load(key)

    def disown(self, key: str, reason: str) -> None:
        """Put a record into quarantine whose outputs, though intact, are not what it says."""
        self._actions.disown(key, reason)

    def lost(self, operations: Collection[str] | None = None) -> list[Loss]:
        """Actions (of some operations) that are damaged or gone in part, and were not made again since."""
        from guda_cli.store.losses import losses

        return losses(self._layout, self._blobs, self._actions, operations)

    def forget(self, key: str) -> None:
        """Remove a record; its blobs stay for `gc`."""
        self._actions.forget(key)

    # Resume states

    def save_state(self, key: str, step: int, data: bytes) -> None:
        """Replace the resume state of an action, keeping the one before as a fallback."""
        self._states.save(key, step, data)

    def load_state(self, key: str) -> tuple[int, bytes] | None:
        """Step and data of the newest intact resume state."""
        return self._states.load(key)

    def state_step(self, key: str) -> int | None:
        """The step an interrupted action would go on at, from the state's head alone."""
        return self._states.step(key)

    def drop_state(self, key: str) -> None:
        """Remove the resume states of an action."""
        self._states.drop(key)

    # Documents

    def get_document(self, name: str) -> dict[str, Any] | None:
        """A small mutable document; None when absent or damaged."""
        return self._documents.get(name)

    def set_document(self, name: str, value: dict[str, Any]) -> None:
        """Replace a document."""
        self._documents.set(name, value)

    def get_safe_document(self, name: str) -> dict[str, Any] | None:
        """A document that is there twice, from whichever is intact; None when neither is."""
        return self._documents.get_safe(name)

    def set_safe_document(self, name: str, value: dict[str, Any]) -> None:
        """Replace a document that says what nothing else says, and its copy."""
        self._documents.set_safe(name, value)

    # What this process uses

    def attend(self) -> None:
        """From here on tell garbage collection, in a lease, what this process uses of the store.

        That are the records it looked up, what it put into the store, tables that it read and what `hold` and
        `want` say, until `guda_cli.store.held.release_all`. On a read-only store it does nothing.
        """
        if self._layout.held is None and not self.read_only:
            from guda_cli.store.held import Held

            self._layout.held = Held(self._leases)

    def hold(self, name: str) -> None:
        """Say that an action, blob or table is used (see `attend`)."""
        self._layout.hold(name)

    def want(self, what: Mapping[str, Any]) -> None:
        """Say in other words what is wanted: see `wanted` of `gc`."""
        if self._layout.held is not None and not self.read_only:
            with self._layout.using():
                self._layout.held.note(what)

    # Leases and pins

    def lease(
        self,
        key: str,
        *,
        wait: bool = True,
        poll: float = 0.2,
        stale_after: float = 30.0,
        on_wait: Callable[[dict[str, Any]], None] | None = None,
        holds: Iterable[str] = (),
    ) -> AbstractContextManager[None]:
        """Hold the right to work on an action; waits for a live holder, or raises LeaseBusy.

        `holds` names action keys and blobs that garbage collection keeps while the lease is held.
        """
        return self._leases.hold(
            key, wait=wait, poll=poll, stale_after=stale_after, on_wait=on_wait, holds=holds
        )

    def pin(self, key: str, note: str = "") -> None:
        """Keep an action and what it was made from."""
        self._pins.add(key, note)

    def unpin(self, key: str) -> None:
        """Take a pin away."""
        self._pins.remove(key)

    def pins(self) -> dict[str, dict[str, Any]]:
        """Pinned keys, each with `note` and `created`."""
        return self._pins.all()

    # Tables

    def table_publish(
        self,
        table: str,
        spec: dict[str, Any],
        rows: Sequence[Row],
        arrays: Mapping[str, np.ndarray[Any, Any]],
        attrs: dict[str, Any],
    ) -> str:
        """Add a segment of rows to a table (declaring it the first time); the digest of the segment."""
        return self._tables.publish(table, spec, rows, arrays, attrs)

    def table_rows(self, table: str) -> set[Row]:
        """Rows a table holds."""
        return self._tables.rows(table)

    def table_read(
        self, table: str, rows: Sequence[Row]
    ) -> tuple[dict[str, np.ndarray[Any, Any]], list[Row]]:
        """Arrays of the rows that are there, in the order asked for, and the names of the missing ones."""
        return self._tables.read(table, rows)

    def table_compact(self, table: str, *, above: int = 64) -> bool:
        """Merge the segments of a table when there are more than `above`."""
        return self._tables.compact(table, above=above)

    def table_specs(self) -> dict[str, dict[str, Any]]:
        """What every table was declared with, by its key; cheap beside `tables`."""
        return self._tables.specs()

    def tables(self) -> list[dict[str, Any]]:
        """Every table: `table`, `spec`, `segments`, `rows`, `bytes`."""
        return self._tables.summaries()

    # Maintenance

    def verify(self, progress: Callable[[int, int], None] | None = None) -> VerifyReport:
        """Hash and parse everything; quarantine what is bad. `progress` gets bytes done and bytes in all."""
        from guda_cli.store.verify import Verifier

        return Verifier(self._layout, self._blobs, self._actions, self._tables).run(progress)

    def gc(
        self,
        roots: Iterable[str] = (),
        *,
        table_roots: Iterable[str] | None = None,
        dry_run: bool = True,
        grace_seconds: float = 3600.0,
        wanted: Wanted | None = None,
    ) -> GcReport:
        """Remove (or with `dry_run` list) what neither roots, pins nor live leases lead to.

        Nothing younger than `grace_seconds` goes. `table_roots` None keeps all tables. `wanted` turns what
        other processes `want` into keys and tables; None from it: that cannot be told, and no record goes.
        """
        from guda_cli.store.gc import Collector

        collector = Collector(self._layout, self._blobs, self._actions, self._tables, wanted)
        return collector.run(roots, table_roots, dry_run=dry_run, grace_seconds=grace_seconds)

    def usage(self) -> dict[str, Any]:
        """Files and bytes of each kind (`{"blobs": {"count": 3, "bytes": 120}, ...}`), and `bytes` in all."""
        found: dict[str, Any] = {name: _measure(self._layout.folder(name)) for name in FOLDERS}
        return {**found, "bytes": sum(part["bytes"] for part in found.values())}


def _measure(folder: Path) -> dict[str, int]:
    """Number and bytes of the files below a folder."""
    count = size = 0
    for path in listing(folder):
        if path.is_dir():
            inner = _measure(path)
            count, size = count + inner["count"], size + inner["bytes"]
        elif not path.name.startswith("."):
            try:
                size += path.stat().st_size
            except OSError:  # gone while being counted, or a link that leads nowhere
                continue
            count += 1
    return {"count": count, "bytes": size}
