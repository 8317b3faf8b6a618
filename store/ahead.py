"""Digests of large files: worked out once a process, in a thread while something else is being done."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path

from guda_cli.store.memory import Stamp, stamp_of


class Digests:
    """The digest of each file for as long as it stays as it was; `begin` has it worked out beforehand.

    hashlib lets go of Python's lock, so the thread costs others nothing but a core. It is never waited for
    at the end of a process. What was not begun when it is asked for, the asking thread works out itself.
    """

    def __init__(self, hash_file: Callable[[Path], str]) -> None:
        self._hash = hash_file
        self._known: dict[Path, tuple[Stamp | None, str]] = {}
        self._waiting: deque[Path] = deque()
        self._working: Path | None = None
        self._lock = threading.Condition()
        self._thread: threading.Thread | None = None

    def begin(self, path: Path) -> None:
        """Have the digest of `path` worked out; errors show when it is asked for."""
        with self._lock:
            if path in self._waiting or path == self._working or self._current(path) is not None:
                return
            self._waiting.append(path)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="digests", daemon=True)
                self._thread.start()

    def of(self, path: Path) -> str:
        """The digest of `path`; errors as the function that hashes has them."""
        with self._lock:
            while path == self._working:
                self._lock.wait()
            if path in self._waiting:
                self._waiting.remove(path)
            known = self._current(path)
        return self._work_out(path) if known is None else known

    def drop(self, path: Path) -> None:
        """Forget what is known of a file, so that its bytes are looked at again."""
        with self._lock:
            self._known.pop(path, None)

    def _current(self, path: Path) -> str | None:
        known = self._known.get(path)
        return known[1] if known is not None and known[0] == stamp_of(path) else None

    def _work_out(self, path: Path) -> str:
        stamp = stamp_of(path)  # before it is read: what is replaced meanwhile is read again
        digest = self._hash(path)
        if stamp is not None:
            with self._lock:
                self._known[path] = stamp, digest
        return digest

    def _run(self) -> None:
        while True:
            with self._lock:
                self._working = self._waiting.popleft() if self._waiting else None
                if self._working is None:
                    self._thread = None
                    return
                path = self._working
            try:
                self._work_out(path)
            except Exception:  # noqa: BLE001 - who asks for it meets it again, and says it
                pass
            finally:
                with self._lock:
                    self._working = None
                    self._lock.notify_all()
