"""Action records: what was run on what, and the blobs it made."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from guda_cli.store.blobs import Blobs
from guda_cli.store.errors import MissingBlob, StoreError
from guda_cli.store.files import DamagedFile, fsync_folder, guarded, listing, load_record, unlink
from guda_cli.store.keys import action_key, canonical_json, check_digest, is_digest
from guda_cli.store.layout import Layout

_FIELDS = ("key", "operation", "version", "params", "inputs", "outputs", "provenance", "created")
_FEWEST = 4


@dataclass(frozen=True)
class ActionRecord:
    """One finished action: `outputs` maps a name to the digest of a blob, `inputs` likewise.

    `key` covers operation, version, params and inputs; `provenance` (command line, versions, wall time)
    and `created` (UTC, ISO 8601) are told but decide nothing.
    """

    key: str
    operation: str
    version: int
    params: dict[str, Any]
    inputs: dict[str, str]
    outputs: dict[str, str]
    provenance: dict[str, Any]
    created: str


class Actions:
    """The records of a store, at actions/<key>.json."""

    def __init__(self, layout: Layout, blobs: Blobs) -> None:
        self._layout = layout
        self._blobs = blobs
        self._folder = layout.folder("actions")

    def path(self, key: str) -> Path:
        """Where the record of a key lies, or would lie."""
        return self._folder / f"{check_digest(key, 'action key')}.json"

    def all_keys(self) -> list[str]:
        """Keys of all records, sorted; their content is not looked at."""
        return [
            path.stem for path in listing(self._folder) if path.suffix == ".json" and is_digest(path.stem)
        ]

    def load(self, key: str) -> ActionRecord | None:
        """The record of a key, its outputs present or not; None when absent or damaged."""
        path = self.path(key)
        try:
            return self._layout.memory.small(path, load_action)
        except DamagedFile as damage:
            self._layout.quarantine("record", path, str(damage))
            return None

    def lookup(self, key: str) -> ActionRecord | None:
        """The record of a key if it can be used: intact, with every output in the store.

        Garbage collection is told of it first, where this process tells it what it uses.
        """
        if os.path.lexists(self.path(key)):
            self._layout.hold(key)
        record = self.load(key)
        if record is None or self.missing(record):
            return None
        return record

    def missing(self, record: ActionRecord) -> list[str]:
        """Names of the outputs of a record that are not in the store."""
        return [name for name, digest in record.outputs.items() if not self._blobs.has(digest)]

    def publish(self, record: ActionRecord) -> ActionRecord:
        """Store a record unless a usable one is there; the one that counts."""
        self._layout.require_writable("writing a record")
        if record.key != action_key(record.operation, record.version, record.params, record.inputs):
            raise ValueError(f"the key {record.key[:12]} is not that of its operation, parameters and inputs")
        self._layout.hold(record.key)
        for digest in record.outputs.values():
            if not self._blobs.touch(digest):
                raise MissingBlob(digest)
        found = self.lookup(record.key)
        if found is not None:
            fsync_folder(self._folder)  # whoever published it may not have come to this yet
            return found
        body = json.loads(canonical_json({name: getattr(record, name) for name in _FIELDS}))
        path = self.path(record.key)
        if not self._layout.publish_json("record", path, body, exclusive=True):
            found = self.lookup(record.key)
            if found is not None:
                return found
            # The record in the way lists outputs that are gone: the new one repairs it.
            self._layout.publish_json("record", path, body)
        return ActionRecord(**body)

    def records(self, operation: str | None = None) -> Iterator[ActionRecord]:
        """All intact records, oldest first."""
        found = [record for key in self.all_keys() if (record := self.load(key)) is not None]
        found.sort(key=lambda record: (record.created, record.key))
        return (record for record in found if operation is None or record.operation == operation)

    def resolve(self, prefix: str) -> ActionRecord:
        """The record whose key begins with `prefix`, if there is exactly one."""
        if len(prefix) < _FEWEST:
            raise StoreError(
                f"'{prefix}' is too short to name a record", fix=f"give at least {_FEWEST} digits of the key"
            )
        found = [key for key in self.all_keys() if key.startswith(prefix.lower())]
        if len(found) > 1:
            raise StoreError(
                f"'{prefix}' names {len(found)} records",
                why="candidates: " + ", ".join(key[: len(prefix) + 8] for key in found[:8]),
                fix="give more digits of the key",
            )
        record = self.load(found[0]) if found else None
        if record is None:
            raise StoreError(
                f"no record of this store has a key beginning with '{prefix}'",
                fix="guda store ls",
            )
        return record

    def disown(self, key: str, reason: str) -> None:
        """Put a record into quarantine whose contents turned out not to be what it says."""
        self._layout.memory.drop(self.path(key))
        if os.path.lexists(self.path(key)):
            self._layout.quarantine("record", self.path(key), reason)

    def forget(self, key: str) -> None:
        """Remove a record; its blobs stay until they are collected."""
        self._layout.require_writable("removing a record")
        with guarded("removing a record", self._layout.root):
            unlink(self.path(key))


def now() -> str:
    """The present moment, UTC, ISO 8601 with microseconds."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def checked_outputs(outputs: Mapping[str, str]) -> dict[str, str]:
    """The outputs of an action as a dict, every one a digest."""
    return {name: check_digest(digest) for name, digest in outputs.items()}


def load_action(path: Path) -> ActionRecord | None:
    """The record at `path`; None when there is none, DamagedFile when it is not what its name says."""
    body = load_record(path)
    record = None if body is None else parse_action(body)
    if body is not None and (record is None or record.key != path.stem):
        raise DamagedFile("it is not the record its name says")
    return record


def parse_action(body: dict[str, Any]) -> ActionRecord | None:
    """A record from its JSON, or None when a field is missing or of the wrong kind."""
    if set(body) != set(_FIELDS):
        return None
    dicts = [body[name] for name in ("params", "inputs", "outputs", "provenance")]
    if not all(isinstance(part, dict) for part in dicts) or not isinstance(body["created"], str):
        return None
    if not all(is_digest(digest) for digest in body["outputs"].values()):
        return None
    try:
        key = action_key(body["operation"], body["version"], body["params"], body["inputs"])
    except (TypeError, ValueError):
        return None
    return ActionRecord(**body) if key == body["key"] else None
