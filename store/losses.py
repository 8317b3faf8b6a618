"""What a store once had and has no more: what is damaged or gone, and was not made again since."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from guda_cli.store.actions import ActionRecord, Actions, parse_action
from guda_cli.store.blobs import Blobs
from guda_cli.store.errors import StoreError
from guda_cli.store.files import DamagedFile, listing, read_whole
from guda_cli.store.keys import is_digest
from guda_cli.store.layout import Layout


@dataclass(frozen=True)
class Loss:
    """An action whose record, or an output of it, is damaged or gone; what it was as far as is known.

    `operation` is "" where that cannot be read any more; `record` is there only where its key vouches for it.
    """

    key: str
    operation: str
    what: str
    record: ActionRecord | None = None


def losses(
    layout: Layout, blobs: Blobs, actions: Actions, operations: Collection[str] | None = None
) -> list[Loss]:
    """What is damaged or gone and still missing, each action once; of some operations and unknown ones."""
    lost: dict[str, Loss] = {}
    damaged = {path.name for path in listing(layout.folder("quarantine"))}
    if layout.read_only:  # what is damaged there stays where it is
        damaged |= {f"record-{path.name}" for path in map(Path, layout.damaged) if path.parts[0] == "actions"}
    for name in sorted(damaged):
        kind, _, rest = name.partition("-")
        key = rest.partition(".")[0]
        if kind != "record" or not is_digest(key) or actions.load(key) is not None:
            continue
        moved = layout.folder("quarantine") / name
        found = _read(key, moved if moved.exists() else actions.path(key))
        if operations is None or found.operation in operations or not found.operation:
            lost.setdefault(key, found)
    for record in actions.records():
        if (operations is None or record.operation in operations) and any(
            not blobs.has(digest) for digest in record.outputs.values()
        ):
            lost.setdefault(record.key, Loss(record.key, record.operation, _what(record), record))
    return list(lost.values())


def _what(record: ActionRecord) -> str:
    return str(record.provenance.get("what", record.operation))


def _read(key: str, path: Path) -> Loss:
    """What a damaged record says that can still be read."""
    try:
        body: Any = json.loads(read_whole(path) or b"")
        body.pop("sha256", None)
        record = parse_action(body)
        if record is not None and record.key == key:
            return Loss(key, record.operation, _what(record), record)
        operation, what = body["operation"], body["provenance"].get("what", body["operation"])
    except (DamagedFile, StoreError, ValueError, RecursionError, TypeError, KeyError, AttributeError):
        return Loss(key, "", "a record")
    return Loss(key, str(operation), str(what))
