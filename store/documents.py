"""Small mutable things: documents by name, and pins by action key."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import Any

from guda_cli.store.actions import now
from guda_cli.store.errors import StoreError
from guda_cli.store.files import guarded, left_by_others, listing, unlink
from guda_cli.store.keys import check_digest, is_digest
from guda_cli.store.layout import Layout

_COPY = ".copy"
"""How the name of a document's copy ends."""
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")


class Documents:
    """JSON documents that are replaced whole, at documents/<name>.json."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._folder = layout.folder("documents")

    def _path(self, name: str) -> Path:
        if not _NAME.fullmatch(name):
            raise ValueError(f"not a document name (letters, digits, '.', '_', '-'): {name!r}")
        return self._folder / f"{name}.json"

    def names(self) -> list[str]:
        """Names of all documents; what others left in the folder is none."""
        names = [path.stem for path in listing(self._folder) if path.suffix == ".json"]
        return [name for name in names if _NAME.fullmatch(name) and not left_by_others(name)]

    def get(self, name: str) -> dict[str, Any] | None:
        """The document, or None when it is absent or damaged (then quarantined)."""
        path = self._path(name)
        body = self._layout.load_json("document", path)
        if body is None:
            return None
        value = body.get("value")
        if body.get("name") != name or not isinstance(value, dict):
            self._layout.quarantine("document", path, "it is not the document its name says")
            return None
        return value

    def set(self, name: str, value: dict[str, Any]) -> None:
        """Replace the document."""
        self._layout.publish_json("document", self._path(name), {"name": name, "value": value})

    def get_safe(self, name: str) -> dict[str, Any] | None:
        """A document that `set_safe` wrote, or where it is damaged or gone its copy, which takes its place.

        A document of an older store, which has no copy, gets one.
        """
        value, copy = self.get(name), self.get(name + _COPY)
        if value is None and copy is not None:
            self._layout.note(f"document {name} was damaged or gone: its copy is used")
            self._make_good(name, copy)
        elif value is not None and copy != value:
            self._make_good(name + _COPY, value)
        return copy if value is None else value

    def set_safe(self, name: str, value: dict[str, Any]) -> None:
        """Replace a document that says what nothing else says: it is there twice.

        The copy is written first, so that it is never the older one of two that are intact.
        """
        self.set(name + _COPY, value)
        self.set(name, value)

    def _make_good(self, name: str, value: dict[str, Any]) -> None:
        if not self._layout.read_only:
            with contextlib.suppress(StoreError):  # a full disk: another time
                self.set(name, value)


class Pins:
    """Action keys that garbage collection keeps, at pins/<key>.json.

    The file's name is the pin; its content is only a note. So a damaged pin still protects.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def _path(self, key: str) -> Path:
        return self._layout.folder("pins") / f"{check_digest(key, 'action key')}.json"

    def add(self, key: str, note: str = "") -> None:
        """Pin a key."""
        self._layout.publish_json("pin", self._path(key), {"key": key, "note": note, "created": now()})

    def remove(self, key: str) -> None:
        """Unpin a key; nothing happens when it is not pinned."""
        self._layout.require_writable("removing a pin")
        with guarded("removing a pin", self._layout.root):
            unlink(self._path(key))

    def all(self) -> dict[str, dict[str, Any]]:
        """Pinned keys with note and time."""
        return {key: self._read(key) for key in self.pinned()}

    def pinned(self) -> list[str]:
        """Pinned keys."""
        return [path.stem for path in listing(self._layout.folder("pins")) if is_digest(path.stem)]

    def _read(self, key: str) -> dict[str, Any]:
        body = self._layout.load_json("pin", self._path(key))
        if body is None:
            body = {"key": key, "note": "", "created": now()}
            if not self._layout.read_only:
                with contextlib.suppress(StoreError):
                    self._layout.publish_json("pin", self._path(key), body)
        return {"note": str(body.get("note", "")), "created": str(body.get("created", ""))}
