"""Looks into the folder of a store, past what it offers to the program."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from guda_cli.store import Store
from guda_cli.store.layout import Layout
from guda_cli.store.leases import Leases


def blob_file(store: Store, digest: str) -> Path:
    """Where a blob lies, or would lie."""
    return store.root / "blobs" / "sha256" / digest[:2] / digest


def live_leases(store: Store) -> list[dict[str, Any]]:
    """Holders of leases that live, as garbage collection sees them."""
    return Leases(Layout(store.root, read_only=store.read_only)).live()
