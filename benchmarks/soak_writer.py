"""What the processes of `soak.py` do to a store: work that can be done again and again, with a journal.

The journal is a file beside the store, a line for each thing that is finished, written when the store has
said that it is; so whatever stands in it must be there whenever the writer is killed.
"""

from __future__ import annotations

import hashlib
import os
import random
import time
from pathlib import Path

import numpy as np

from guda_cli.store import Store, StoreError, StoreFull, action_key

ACTIONS, ROWS, BLOCK = 120, 120, 3
FULL = 28  # the exit code of a writer that met a full disk
TABLE = action_key("elbo", 1, {"soak": 1}, {})


def content(number: int) -> bytes:
    """The bytes that an action makes."""
    rng = random.Random(number)
    return hashlib.sha512(b"%d" % number).digest() * rng.randrange(1, 500)


def key_of(number: int) -> str:
    """Every action but each third rests on the one before."""
    return action_key("soak", 1, {"number": number}, _inputs(number))


def _inputs(number: int) -> dict[str, str]:
    return {"parent": hashlib.sha256(content(number - 1)).hexdigest()} if number % 3 else {}


def row(number: int) -> str:
    """The name of a table's row."""
    return hashlib.sha256(b"row %d" % number).hexdigest()


def values(number: int) -> np.ndarray:
    """The numbers of a row [1, 16]."""
    return np.random.default_rng(number).normal(size=(1, 16))


def work(root: Path, seed: str, journal: Path, *, collect: bool, until: float | None = None) -> int:
    """Use a store at random, for 40 steps or until a time (`time.monotonic`); FULL where the disk is.

    With `collect` garbage is collected meanwhile, and only what this process holds is sure to be there.
    """
    rng = random.Random(seed)
    note = _Note(journal)
    try:
        store = Store.open(root)
        store.attend()
        while time.monotonic() < until if until is not None else rng.random() < 0.975:
            _step(store, rng, note, collect)
    except StoreFull:
        return FULL
    except StoreError as error:
        note.write(f"complaint {type(error).__name__}: {error.message}: {error.why}")
    return 0


def _step(store: Store, rng: random.Random, note: _Note, collect: bool) -> None:
    number, kind = rng.randrange(ACTIONS), rng.random()
    if kind < 0.55:
        _act(store, number, rng, note)
    elif kind < 0.75:
        start = BLOCK * rng.randrange(ROWS // BLOCK)
        block = range(start, start + BLOCK)
        arrays = {"terms": np.concatenate([values(n) for n in block])}
        store.table_publish(TABLE, {"soak": 1}, [row(n) for n in block], arrays, {"of": "soak"})
        note.write(f"rows {start}")
    elif kind < 0.8:
        store.table_compact(TABLE, above=4)
    elif kind < 0.9:
        store.set_safe_document("current", {"number": number})
        note.write("document")
    elif not collect and kind < 0.93:
        store.gc([key_of(n) for n in range(ACTIONS)], dry_run=False, grace_seconds=0.0)
    else:
        record = store.lookup(key_of(number))
        if record is not None and store.read_bytes(record.outputs["model"]) != content(number):
            note.write(f"complaint another content of action {number}")


def _act(store: Store, number: int, rng: random.Random, note: _Note) -> None:
    key = key_of(number)
    if store.lookup(key) is None:
        with store.lease(key, poll=0.005):
            for step in range(rng.randrange(3)):
                store.save_state(key, step + 1, content(number)[: 200 * (step + 1)])
            _publish(store, number)
            store.drop_state(key)
    record = store.lookup(key)
    if record is None or store.read_bytes(record.outputs["model"]) != content(number):
        note.write(f"complaint action {number} was finished and is not there")
    note.write(f"action {number}")


def _publish(store: Store, number: int) -> None:
    outputs = {"model": store.put_bytes(content(number))}
    store.publish(
        key_of(number), operation="soak", version=1, params={"number": number}, inputs=_inputs(number),
        outputs=outputs, provenance={"what": f"action {number}"},
    )  # fmt: skip


def collect(root: Path, journal: Path, until: float) -> int:
    """Collect garbage again and again: all but every second action."""
    store, note = Store.open(root), _Note(journal)
    while time.monotonic() < until:
        try:
            store.gc([key_of(n) for n in range(0, ACTIONS, 2)], dry_run=False, grace_seconds=0.0)
        except StoreError as error:
            note.write(f"complaint collecting garbage: {error.message}: {error.why}")
        note.write("collection")
    return 0


class _Note:
    """Lines for the journal, each in one write."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def write(self, line: str) -> None:
        os.write(self._fd, line.encode() + b"\n")


def _lines(journal: Path) -> list[str]:
    return journal.read_text().splitlines() if journal.exists() else []


def finished(journal: Path) -> list[str]:
    """What is finished, each once."""
    return [
        line for line in dict.fromkeys(_lines(journal)) if not line.startswith(("complaint", "collection"))
    ]


def complaints(journal: Path) -> list[str]:
    """What writers found wrong."""
    return [line for line in _lines(journal) if line.startswith("complaint")]


def collections(journal: Path) -> int:
    """How often garbage was collected."""
    return _lines(journal).count("collection")


def there(store: Store, line: str) -> bool:
    """Whether what a line of the journal says is finished is in the store, as it must be."""
    kind, _, rest = line.partition(" ")
    if kind == "document":
        return store.get_safe_document("current") is not None
    if kind == "rows":
        names = [row(int(rest) + i) for i in range(BLOCK)]
        arrays, missing = store.table_read(TABLE, names)
        expected = np.concatenate([values(int(rest) + i) for i in range(BLOCK)])
        return not missing and bool((arrays["terms"] == expected).all())
    record = store.lookup(key_of(int(rest)))
    return record is not None and store.read_bytes(record.outputs["model"]) == content(int(rest))


def damaged(path: Path, rng: random.Random) -> str:
    """Damage a file; how."""
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    how = rng.choice(("flipped bit", "flipped bit", "cut", "hole", "tail", "removal"))
    if how == "removal" or not data:
        path.unlink()
        return "removal"
    at = rng.randrange(len(data))
    if how == "flipped bit":
        data[at] ^= 1 << rng.randrange(8)
    elif how == "cut":
        del data[at:]
    elif how == "hole":
        some = data[at : at + 64]
        data[at : at + 64] = bytes(255 - byte for byte in some)
    else:
        data += rng.randbytes(16)
    path.write_bytes(bytes(data))
    return how
