"""Resume states: the newest of an unfinished action, and the one before it as a fallback."""

from __future__ import annotations

import contextlib
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
    require_file,
    unlink,
    unreadable,
    write_bytes,
)
from guda_cli.store.keys import canonical_json, check_digest, is_digest, sha256_hex
from guda_cli.store.layout import Layout

_NEWEST = ".state"
_PREVIOUS = ".previous"
_LONGEST_HEAD = 4096  # bytes


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
        self._layout.hold(key)
        head = {"key": key, "step": step, "size": len(data), "data": sha256_hex(data)}
        line = canonical_json(head)
        with guarded("saving a state", self._layout.root):
            temp = self._layout.temp(_NEWEST)
            try:
                write_bytes(temp, line + b" " + sha256_hex(line).encode() + b"\n" + data)
                point("state-before-rename")
                # Another process that works on the same may have moved it, or finished and dropped it.
                with contextlib.suppress(FileNotFoundError):
                    newest.replace(previous)
                point("state-between-renames")
                temp.replace(newest)
                point("state-after-rename")
                fsync_folder(self._folder)
            finally:
                discard(temp)

    def load(self, key: str) -> tuple[int, bytes] | None:
        """Step and data of the newest intact state; damaged ones are quarantined on the way."""
        self._layout.hold(key)
        for path in self.files(key):
            found = self.check(key, path)
            if found is not None:
                return found
        return None

    def step(self, key: str) -> int | None:
        """The step that the newest state claims to be at; its data are not read, so not checked."""
        for path in self.files(key):
            try:
                require_file(path)
                with path.open("rb") as file:
                    return _step(_parse_head(file.readline(_LONGEST_HEAD).rstrip(b"\n")))
            except (OSError, DamagedFile):
                continue
        return None

    def check(self, key: str, path: Path) -> tuple[int, bytes] | None:
        """Step and data of one state file; None when absent or damaged (then quarantined)."""
        try:
            return _read(key, path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except DamagedFile as damage:
            self._layout.quarantine("state", path, str(damage))
            return None
        except OSError as error:
            meaning = unreadable(path, error)
            if not isinstance(meaning, DamagedFile):
                raise meaning from error
            self._layout.quarantine("state", path, str(meaning))
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
    try:
        head = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DamagedFile("its head is not readable JSON") from error
    if not isinstance(head, dict):
        raise DamagedFile("its head is not that of a state")
    return head


def _step(head: dict[str, Any]) -> int:
    step = head.get("step")
    if not isinstance(step, int) or isinstance(step, bool) or not 0 <= step < 1 << 53:
        raise DamagedFile("its head names no step")
    return step


def _read(key: str, path: Path) -> tuple[int, bytes]:
    """Step and data of a state file; nothing but its head is read before its size is as that says."""
    size = require_file(path)
    with path.open("rb") as file:
        line = file.readline(_LONGEST_HEAD)
        head = _parse_head(line.rstrip(b"\n"))
        if not line.endswith(b"\n") or head.get("key") != key or head.get("size") != size - len(line):
            raise DamagedFile("bad checksum")
        data = file.read()
    if head.get("data") != sha256_hex(data):
        raise DamagedFile("bad checksum")
    return _step(head), data
