"""What a store once had and has no more: what lies in quarantine and was not made again since."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from guda_cli.store.actions import Actions
from guda_cli.store.blobs import Blobs
from guda_cli.store.errors import StoreError
from guda_cli.store.files import DamagedFile, listing, read_whole
from guda_cli.store.keys import is_digest
from guda_cli.store.layout import Layout


@dataclass(frozen=True)
class Loss:
    """An action whose record, or an output of it, was damaged; what it was as far as is known."""

    key: str
    operation: str
    what: str


def losses(layout: Layout, blobs: Blobs, actions: Actions) -> list[Loss]:
    """What was put into quarantine and is still missing, each action once."""
    lost: dict[str, Loss] = {}
    gone: set[str] = set()
    for path in listing(layout.folder("quarantine")):
        kind, _, rest = path.name.partition("-")
        name = rest.partition(".")[0]
        if not is_digest(name):
            continue
        if kind == "record" and not actions.path(name).exists():
            lost.setdefault(name, Loss(name, *_words(path)))
        elif kind == "blob" and not blobs.has(name):
            gone.add(name)
    if gone:
        for record in actions.records():
            if gone.intersection(record.outputs.values()):
                what = str(record.provenance.get("what", record.operation))
                lost.setdefault(record.key, Loss(record.key, record.operation, what))
    return list(lost.values())


def _words(path: Path) -> tuple[str, str]:
    """The operation of a damaged record, and what it made, where that can still be read."""
    try:
        body: Any = json.loads(read_whole(path) or b"")
        operation, what = str(body["operation"]), body["provenance"].get("what", body["operation"])
    except (DamagedFile, StoreError, ValueError, RecursionError, TypeError, KeyError, AttributeError):
        return "", "a record"
    return operation, str(what)
