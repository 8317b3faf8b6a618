"""What a process uses of a store, told to garbage collection: a lease of its own that grows."""

from __future__ import annotations

import atexit
import contextlib
import os
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from guda_cli.store.keys import canonical_json
from guda_cli.store.leases import STALE_AFTER, Holder, Leases, heartbeat, new_holder


class Held:
    """The names that this process uses: action keys, blobs and tables, until `release`.

    A name is in the file before it is used. On a full disk the file may lack it; nothing is refused for that.
    """

    def __init__(self, leases: Leases) -> None:
        self._leases = leases
        self._names: set[str] = set()
        self._notes: list[bytes] = []
        self._mine: Holder | None = None
        self._fd = -1
        self._ending = contextlib.ExitStack()
        _every.add(self)

    @property
    def token(self) -> str | None:
        """By which this process knows its own lease."""
        return self._mine["token"] if self._mine else None

    def __contains__(self, digest: str) -> bool:
        """Whether that is said already, by this process."""
        return digest in self._names and self._ours()

    def name(self, digest: str) -> None:
        """Say that something is used."""
        self._names.add(digest)
        self._write(digest.encode())

    def note(self, note: Mapping[str, Any]) -> None:
        """Say what else is wanted, in words that the caller of `Store.gc` understands."""
        line = canonical_json(dict(note))
        if line not in self._notes:
            self._notes.append(line)
            self._write(line)

    def release(self) -> None:
        """End it: nothing is used any more."""
        if self._mine is not None and self._ours():
            self._ending.close()
            with contextlib.suppress(OSError):
                os.close(self._fd)
            self._leases.end(self._mine)
        self._mine, self._fd = None, -1
        self._names.clear()
        self._notes.clear()

    def _ours(self) -> bool:
        """Whether this is still the process that wrote it: a fork has a lease of its own."""
        return self._mine is None or self._mine["pid"] == os.getpid()

    def _write(self, line: bytes) -> None:
        with contextlib.suppress(OSError):
            if self._mine is None or not self._ours() or not os.fstat(self._fd).st_nlink:
                self._begin()
            else:
                os.write(self._fd, b"\n" + line + b"\n")  # what was before may be torn

    def _begin(self) -> None:
        """Write a lease with all that was named so far."""
        if self._ours():
            self._ending.close()
        if self._fd >= 0:
            os.close(self._fd)
        self._mine, self._fd, self._ending = None, -1, contextlib.ExitStack()
        mine = new_holder(os.urandom(32).hex())
        path: Path = self._leases.begin({**mine, "holds": sorted(self._names)})
        try:
            self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | getattr(os, "O_CLOEXEC", 0))
            os.write(self._fd, b"".join(line + b"\n" for line in self._notes))
        except OSError:
            self._leases.end(mine)
            raise
        self._mine = mine
        self._ending.enter_context(heartbeat(path, STALE_AFTER / 6))


_every: weakref.WeakSet[Held] = weakref.WeakSet()


def release_all() -> None:
    """End what this process holds, of whatever store."""
    for held in list(_every):
        held.release()


atexit.register(release_all)
