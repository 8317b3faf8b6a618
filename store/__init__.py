"""A content-addressed store of results: bytes, keys and lineage, safe against crashes and bit rot.

It knows nothing of what the bytes mean. See docs/store-format.md for what lies on the disk.
"""

from guda_cli.store.actions import ActionRecord
from guda_cli.store.core import Store
from guda_cli.store.errors import (
    CorruptBlob,
    LeaseBusy,
    MissingBlob,
    StoreError,
    StoreFormatError,
    StoreFull,
    StoreMissing,
    StoreReadOnly,
)
from guda_cli.store.keys import action_key, canonical_json
from guda_cli.store.tables import Row

__all__ = [
    "ActionRecord",
    "CorruptBlob",
    "LeaseBusy",
    "MissingBlob",
    "Row",
    "Store",
    "StoreError",
    "StoreFormatError",
    "StoreFull",
    "StoreMissing",
    "StoreReadOnly",
    "action_key",
    "canonical_json",
]
