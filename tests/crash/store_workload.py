"""A small deterministic use of a store, to be killed and run again: `store_workload.py FOLDER`.

Everything it does is done only if a look into the store says it is not done yet, as a command of the
program would. It prints a line when it starts, so that whoever kills it knows when.
"""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guda_cli.store import Store, action_key
from guda_cli.store.layout import Layout
from guda_cli.store.leases import Leases

if TYPE_CHECKING:
    import numpy as np

STEPS = 3
TABLE = action_key("elbo", 1, {"grid": 4}, {})
ROWS = [hashlib.sha256(b"query %d" % n).hexdigest() for n in range(6)]


def terms(row: str) -> np.ndarray[Any, Any]:
    """The numbers of one row, a function of its name."""
    import numpy as np

    return np.random.default_rng(int(row[:8], 16)).normal(size=(1, 8, 40))


def train(store: Store, number: int, parent: str | None) -> str:
    """A resumable action in a few steps; the digest of its model."""
    params, inputs = {"number": number}, {"parent": parent} if parent else {}
    key = action_key("train", 1, params, inputs)
    found = store.lookup(key)
    if found is None:
        with store.lease(key):
            step, weights = store.load_state(key) or (0, b"start %d" % number)
            while step < STEPS:
                step, weights = step + 1, weights[-20_000:] + hashlib.sha512(weights).digest() * 1000
                store.save_state(key, step, weights)
            outputs = {"model": store.put_bytes(weights), "log": store.put_bytes(b"log %d" % number)}
            found = store.publish(
                key,
                operation="train",
                version=1,
                params=params,
                inputs=inputs,
                outputs=outputs,
                provenance={"argv": ["train", str(number)]},
            )
    store.drop_state(key)
    store.set_document("current", {"recipe": number})
    return found.outputs["model"]


def score(store: Store) -> None:
    """Fill a table in blocks of two rows, then merge it."""
    import numpy as np

    missing = [row for row in ROWS if row not in store.table_rows(TABLE)]
    for start in range(0, len(missing), 2):
        block = missing[start : start + 2]
        values = np.concatenate([terms(row) for row in block])
        store.table_publish(TABLE, {"grid": 4}, block, {"terms": values}, {"model": "full"})
    store.table_compact(TABLE, above=1)


def workload(root: Path) -> dict[str, Any]:
    """Do what is left to do; everything that must be the same however often it was interrupted."""
    store = Store.open(root)
    parent = None
    for number in range(2):
        parent = train(store, number, parent)
        store.pin(action_key("keep", 1, {"number": number}, {}), "keep")
    score(store)
    store.gc([record.key for record in store.records()], dry_run=False, grace_seconds=-10.0)
    arrays, missing = store.table_read(TABLE, ROWS)
    return {
        "records": {record.key: record.outputs for record in store.records()},
        "table files": sorted(path.name for path in (root / "tables" / TABLE).iterdir()),
        "blobs": sorted(path.name for path in (root / "blobs").rglob("*") if path.is_file()),
        "table": hashlib.sha256(arrays["terms"].tobytes()).hexdigest(),
        "missing": missing,
        "document": store.get_document("current"),
        "pins": list(store.pins()),
        "states": [path.name for path in (root / "states").iterdir()],
        "temporary": [path.name for path in (root / "tmp").iterdir()],
        "leases": Leases(Layout(root, read_only=False)).live(),
        "notices": store.notices,
    }


if __name__ == "__main__":
    if "GUDA_TEST_CRASH_AT" not in os.environ:
        import h5py  # noqa: F401  (before the start is told, so that a kill by time hits the work)

    print("started", flush=True)
    workload(Path(sys.argv[1]))
    print("finished", flush=True)
