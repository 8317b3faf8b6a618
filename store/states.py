"""Resume states: the newest of an unfinished action, and the one before it as a fallback."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from guda_cli.store.crashpoints import point
from guda_cli.store.files import (
    DamagedFile,
    discard,
    fsync_folder,
    guarded,
    listing,
    read_whole,
    unlink,
    write_bytes,
)
from guda_cli.store.keys import canonical_json, check_digest, is_digest, sha256_hex
from guda_cli.store.layout import Layout

_NEWEST = ".state"
_PREVIOUS = ".previous"


class States:
    """The resume states of a store, at states/<key>.state and states/<key>.previous.

    A file is one line of JSON (key, step, size and SHA-256 of the data, and the line's own checksum)
    followed by the data.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._folder = layout.folder("states")

    def files(self, key: str) -> tuple[Path, Path]:
        """Where the newest and the previous state of a key lie."""
        name = check_digest(key, "action key")
        return self._folder / (name + _NEWEST), self._folder / (name + _PREVIOUS)

    def all(self) -> list[tuple[str, Path]]:
        """Every state file with its key."""
        return [
            (path.stem, path)
            for path in listing(self._folder)
            if path.suffix in (_NEWEST, _PREVIOUS) and is_digest(path.stem)
        ]

    def save(self, key: str, step: int, data: bytes) -> None:
        """Make this the newest state; the newest until now becomes the previous one."""
        self._layout.require_writable("saving a state")
        newest, previous = self.files(key)
        head = {"key": key, "step": step, "size": len(data), "data": sha256_hex(data)}
        line = canonical_json(head)
        with guarded("saving a state", self._layout.root):
            temp = self._layout.temp(_NEWEST)
            try:
                write_bytes(temp, line + b" " + sha256_hex(line).encode() + b"\n" + data)
                point("state-before-rename")
                if newest.exists():
                    newest.replace(previous)
                point("state-between-renames")
                temp.replace(newest)
                point("state-after-rename")
                fsync_folder(self._folder)
            finally:
                discard(temp)

    def load(self, key: str) -> tuple[int, bytes] | None:
        """Step and data of the newest intact state; damaged ones are quarantined on the way."""
        for path in self.files(key):
            found = self.check(key, path)
            if found is not None:
                return found
        return None

    def step(self, key: str) -> int | None:
        """The step that the newest state claims to be at; its data are not read, so not checked."""
        for path in self.files(key):
            try:
                with path.open("rb") as file:
                    return int(_parse_head(file.readline().rstrip(b"\n"))["step"])
            except (OSError, DamagedFile):
                continue
        return None

    def check(self, key: str, path: Path) -> tuple[int, bytes] | None:
        """Step and data of one state file; None when absent or damaged (then quarantined)."""
        try:
            raw = read_whole(path)
            return None if raw is None else _parse(key, raw)
        except DamagedFile as damage:
            self._layout.quarantine("state", path, str(damage))
            return None

    def drop(self, key: str) -> None:
        """Remove the states of a key."""
        self._layout.require_writable("dropping a state")
        with guarded("dropping a state", self._layout.root):
            for path in reversed(self.files(key)):
                unlink(path)


def _parse_head(line: bytes) -> dict[str, Any]:
    text, _, checksum = line.rpartition(b" ")
    if sha256_hex(text).encode() != checksum:
        raise DamagedFile("bad checksum")
    head = json.loads(text)
    assert isinstance(head, dict)
    return head


def _parse(key: str, raw: bytes) -> tuple[int, bytes]:
    line, newline, data = raw.partition(b"\n")
    if not newline:
        raise DamagedFile("bad checksum")
    head = _parse_head(line)
    if head.get("key") != key or head.get("size") != len(data) or head.get("data") != sha256_hex(data):
        raise DamagedFile("bad checksum")
    return int(head["step"]), data
