"""What a process that runs many commands keeps of files: each value for as long as its file stays as it was.

Nothing is kept unless `keep` was called, but for small records while one store is open. What is kept must not
be changed by those who get it.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
Stamp = tuple[int, int, int, int]
_SLIGHT = "slight"


class Memory:
    """Values made of files, by the file's path and what made them.

    `missed` lists what had to be made, as (name of the maker, path): another process can `recall` it.
    """

    def __init__(self, most: int = 0) -> None:
        self.most = most  # bytes of files, all together, that values are kept of; 0: only small ones
        self.missed: list[tuple[str, str]] = []
        self._kept: dict[tuple[str, str], tuple[Stamp, Any]] = {}
        self._bytes = 0

    def small(self, path: Path, make: Callable[[Path], T]) -> T:
        """What `make` gives for the file; kept."""
        return self._get(path, f"path {_name(make)}", lambda: make(path))

    def large(self, path: Path, make: Callable[[Path], T]) -> T:
        """The same of a value about as large as its file; kept only where `most` allows it."""
        if not self.most:
            return make(path)
        return self._get(path, f"path {_name(make)}", lambda: make(path))

    def parsed(self, path: Path, parse: Callable[[bytes], T], read: Callable[[], bytes]) -> T:
        """What `parse` makes of a blob's bytes, which `read` gives, checked."""
        if not self.most:
            return parse(read())
        return self._get(path, f"bytes {_name(parse)}", lambda: parse(read()))

    def slight(self, path: Path, make: Callable[[Path], T], now: Callable[[], T] | None = None) -> T:
        """The same of a value that takes hardly any memory: a digest, or the file itself, mapped.

        `now` gives it where this process has a shorter way to it.
        """
        get = now or (lambda: make(path))
        return self._get(path, f"{_SLIGHT} {_name(make)}", get) if self.most else get()

    def knows(self, path: Path, make: Callable[[Path], Any]) -> bool:
        """Whether `slight` has the value of the file as it is now."""
        known = self._kept.get((f"{_SLIGHT} {_name(make)}", str(path)))
        return known is not None and known[0] == stamp_of(path)

    def recall(self, maker: str, path: str) -> None:
        """Keep what another process missed. OSError or ValueError where it cannot be had."""
        kind, _, name = maker.partition(" ")
        module, _, function = name.partition(":")
        make, file = getattr(importlib.import_module(module), function), Path(path)
        if kind in ("path", _SLIGHT):
            self._get(file, maker, lambda: make(file))
        else:
            self._get(file, maker, lambda: make(_checked(file)))

    def drop(self, path: Path) -> None:
        """Drop what was made of one file."""
        for key in [key for key in self._kept if key[1] == str(path)]:
            self._drop(key)

    def forget_stale(self) -> None:
        """Drop what was made of files that have changed or gone."""
        for key, (stamp, _) in list(self._kept.items()):
            if stamp_of(Path(key[1])) != stamp:
                self._drop(key)

    def _get(self, path: Path, maker: str, make: Callable[[], T]) -> T:
        key, stamp = (maker, str(path)), stamp_of(path)
        known = self._kept.get(key)
        if known is not None and known[0] == stamp:
            value: T = known[1]
            return value
        value = make()
        # The stamp was taken before it was read: what is replaced meanwhile is read again.
        if stamp is not None and (not self.most or _settled(stamp, time.time_ns())):
            self._keep(key, stamp, value)
        return value

    def _keep(self, key: tuple[str, str], stamp: Stamp, value: Any) -> None:
        self._drop(key)
        self._kept[key] = stamp, value
        self._bytes += _size(key, stamp)
        self.missed.append(key)
        while self.most and self._bytes > self.most and len(self._kept) > 1:
            self._drop(next(iter(self._kept)))

    def _drop(self, key: tuple[str, str]) -> None:
        known = self._kept.pop(key, None)
        if known is not None:
            self._bytes -= _size(key, known[0])


_shared: Memory | None = None


def keep(most: int) -> Memory:
    """From here on this process, and what is forked from it, keeps up to `most` bytes; its memory."""
    global _shared
    _shared = Memory(most)
    return _shared


def of_a_store() -> Memory:
    """The memory of a store that is being opened: the process's where it keeps one."""
    return Memory() if _shared is None else _shared


def _name(function: Callable[..., Any]) -> str:
    return f"{function.__module__}:{function.__qualname__}"


def _size(key: tuple[str, str], stamp: Stamp) -> int:
    """What a value takes of the bytes that may be kept."""
    return 0 if key[0].startswith(f"{_SLIGHT} ") else stamp[1]


def stamp_of(path: Path) -> Stamp | None:
    """What changes when a file does; None where there is none."""
    try:
        found = os.stat(path)  # noqa: PTH116 - asked for every record that is read
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _settled(stamp: Stamp, now: int) -> bool:
    """Whether a file that changes again, from `now` (nanoseconds) on, gets another stamp.

    Clocks of file systems tick every few milliseconds, or where they know whole seconds every two.
    """
    changed = stamp[3]
    return now - changed > (10_000_000 if changed % 1_000_000_000 else 2_000_000_000)


def _checked(path: Path) -> bytes:
    """The bytes of a blob."""
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != path.name:
        raise ValueError(f"{path.name} is damaged")
    return data
