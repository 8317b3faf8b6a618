"""A lock between those who begin to use something and garbage collection. Nothing rests on it.

Without it (file systems that have none, a holder that was stopped) a collection may take what another process
is about to reuse; that process then stores it again.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

PATIENCE = 5.0  # seconds after which one goes on without the lock
_POLL = 0.0005


@contextlib.contextmanager
def locked(path: Path, *, exclusive: bool, patience: float = PATIENCE) -> Iterator[None]:
    """Hold the lock at `path`, alone or with others; without it after `patience`, or where there is none."""
    try:
        import fcntl

        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC, 0o644)
    except (ImportError, OSError):
        yield
        return
    try:
        wanted = (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB
        give_up = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(fd, wanted)
            except (BlockingIOError, InterruptedError):
                if time.monotonic() < give_up:
                    time.sleep(_POLL)
                    continue
            except OSError:
                pass  # file systems without locks
            break
        yield
    finally:
        os.close(fd)
