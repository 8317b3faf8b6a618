"""Leases: who is working on an action, so that a second process need not do the same work.

Nothing rests on them: two holders at once would publish the same blobs twice.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from guda_cli.store.actions import now
from guda_cli.store.errors import LeaseBusy
from guda_cli.store.files import discard, guarded, listing, unlink, write_bytes
from guda_cli.store.keys import canonical_json, check_digest, is_digest
from guda_cli.store.layout import Layout, place

Holder = dict[str, Any]
_DEFAULT_STALE = 30.0


class Leases:
    """The leases of a store, at leases/<key>.json."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._folder = layout.folder("leases")

    def _path(self, key: str) -> Path:
        return self._folder / f"{check_digest(key, 'action key')}.json"

    @contextlib.contextmanager
    def hold(
        self,
        key: str,
        *,
        wait: bool,
        poll: float,
        stale_after: float,
        on_wait: Callable[[Holder], None] | None,
        holds: Iterable[str],
    ) -> Iterator[None]:
        """Hold the lease of a key while the body runs."""
        if self._layout.read_only:
            yield
            return
        mine = {**_myself(), "key": key, "holds": list(holds), "stale_after": stale_after}
        mine.update(started=now(), token=os.urandom(16).hex())
        path = self._path(key)
        blocked = False
        while (holder := self._take(path, mine)) is not None:
            if not wait:
                raise LeaseBusy(key, holder)
            if on_wait is not None and not blocked:
                on_wait(holder)
            blocked = True
            time.sleep(poll)
        try:
            with _heartbeat(path, stale_after / 6):
                yield
        finally:
            self._release(path, mine["token"])

    def live(self) -> list[Holder]:
        """Holders of all leases that are held by a process still alive, with the age of their heartbeat."""
        found = []
        for path in self._files():
            holder = _read(path)
            if holder is not None and not _stale(holder, 0.0):
                found.append({**holder, "key": path.stem})
        return found

    def dead(self) -> list[Path]:
        """Lease files nobody alive holds."""
        alive = {holder["key"] for holder in self.live()}
        return [path for path in self._files() if path.stem not in alive]

    def sweep(self, path: Path) -> None:
        """Remove a lease file if it is stale still."""
        with self._exclusive():
            holder = _read(path)
            if holder is not None and _stale(holder, 0.0):
                unlink(path)

    def _files(self) -> list[Path]:
        return [path for path in listing(self._folder) if path.suffix == ".json" and is_digest(path.stem)]

    def _take(self, path: Path, mine: Holder) -> Holder | None:
        """None when the lease is now mine, else its live holder."""
        with guarded("taking a lease", self._layout.root):
            while True:
                temp = self._layout.temp(".lease")
                try:
                    write_bytes(temp, canonical_json(mine), sync=False)
                    # A link appears with its content and only if the name is free.
                    if place(temp, path, exclusive=True):
                        return None
                finally:
                    discard(temp)
                holder = _read(path)
                if holder is None:
                    continue
                if not _stale(holder, mine["stale_after"]):
                    return holder
                self._remove_stale(path, mine["stale_after"])

    def _remove_stale(self, path: Path, stale_after: float) -> None:
        """Clear a stale lease away. Looking again under the lock spares the lease of a faster taker."""
        with self._exclusive():
            holder = _read(path)
            if holder is not None and _stale(holder, stale_after):
                unlink(path)

    def _release(self, path: Path, token: str) -> None:
        # A lease that cannot be given back goes stale by itself.
        with contextlib.suppress(OSError), self._exclusive():
            holder = _read(path)
            if holder is not None and holder.get("token") == token:
                unlink(path)

    @contextlib.contextmanager
    def _exclusive(self) -> Iterator[None]:
        """A lock over removals of leases, which the system lifts when its holder dies."""
        try:
            import fcntl
        except ImportError:
            yield
            return
        fd = os.open(self._folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            with contextlib.suppress(OSError):  # file systems without locks: the window is small
                fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)


@contextlib.contextmanager
def _heartbeat(path: Path, interval: float) -> Iterator[None]:
    """Touch the lease file from a thread until the body is done."""
    import threading

    try:
        fd = os.open(path, os.O_RDONLY)
    except OSError:
        yield
        return
    # By descriptor, so that a lease that was taken over is not kept alive for its new holder.
    target: int | Path = fd if os.utime in os.supports_fd else path
    done = threading.Event()

    def beat() -> None:
        while not done.wait(interval):
            with contextlib.suppress(OSError):
                os.utime(target)

    thread = threading.Thread(target=beat, name="lease-heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        os.close(fd)


def _read(path: Path) -> Holder | None:
    """What a lease file says and the age of its heartbeat; None when there is no such file."""
    try:
        age = max(0.0, time.time() - path.stat().st_mtime)
    except OSError:
        return None
    try:
        holder = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        holder = None  # unreadable: held, until its heartbeat is too old
    return {**(holder if isinstance(holder, dict) else {}), "age": age}


def _stale(holder: Holder, stale_after: float) -> bool:
    """Whether the holder's heart stopped, by its own promise and the asker's patience, or it is dead."""
    promised = holder.get("stale_after")
    if not isinstance(promised, int | float):
        promised = _DEFAULT_STALE
    return bool(holder["age"] > max(promised, stale_after)) or _dead(holder)


def _dead(holder: Holder) -> bool:
    """Whether the holder is known to be dead: it ran on this machine and is not here any more."""
    me = _myself()
    pid = holder.get("pid")
    if os.name != "posix":  # elsewhere, os.kill would end the process it asks about
        return False
    if not isinstance(pid, int) or any(holder.get(part) != me[part] for part in ("host", "boot", "space")):
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    state, began = _process(pid)
    return state == "Z" or (began is not None and holder.get("began") not in (None, began))


def _myself() -> Holder:
    """This process, so that others can tell whether it lives."""
    pid = os.getpid()
    return {
        "pid": pid,
        "host": os.uname().nodename if hasattr(os, "uname") else os.environ.get("COMPUTERNAME", ""),
        "boot": _first_line("/proc/sys/kernel/random/boot_id"),
        "space": _pid_space(),
        "began": _process(pid)[1],
    }


def _process(pid: int) -> tuple[str | None, int | None]:
    """State letter and start time (in ticks since boot) of a process, where /proc tells."""
    # The second field is the program's name in parentheses and may hold spaces.
    fields = _first_line(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return (fields[0], int(fields[19])) if len(fields) > 19 else (None, None)


def _pid_space() -> str:
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


def _first_line(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").partition("\n")[0]
    except OSError:
        return ""
