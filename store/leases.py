"""Leases: who is working on an action, so that a second process need not do the same work.

Nothing rests on them: two holders at once would publish the same blobs twice.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from guda_cli.store.actions import now
from guda_cli.store.errors import LeaseBusy, StoreError
from guda_cli.store.files import DamagedFile, discard, guarded, listing, read_whole, unlink, write_bytes
from guda_cli.store.keys import canonical_json, check_digest, is_digest
from guda_cli.store.layout import Layout, place
from guda_cli.store.lock import locked

Holder = dict[str, Any]
STALE_AFTER = 30.0
_LONGEST = 3600.0  # seconds: no lease may ask for more patience
_LARGEST = 64 << 20  # bytes of a lease file


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
        mine = new_holder(key, stale_after) | {"holds": list(holds)}
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
            with heartbeat(path, stale_after / 6):
                yield
        finally:
            self._release(path, mine["token"])

    def live(self) -> list[Holder]:
        """Holders of all leases that are held by a process still alive, with the age of their heartbeat.

        One that is known to live counts however old its heartbeat is: it may have been stopped for a while.
        """
        found = []
        for path in self._files():
            holder = _read(path)
            if holder is not None and (_alive(holder) or not _stale(holder, 0.0)):
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
            if holder is not None and _stale(holder, 0.0) and not _alive(holder):
                self._clear(path)

    def begin(self, holder: Holder) -> Path:
        """Write a lease that nobody else asks for; its file."""
        path = self._path(holder["key"])
        write_bytes(path, canonical_json(holder) + b"\n", sync=False)
        return path

    def end(self, holder: Holder) -> None:
        """Give a lease back."""
        self._release(self._path(holder["key"]), holder["token"])

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
                self._clear(path)

    def _clear(self, path: Path) -> None:
        """Remove a lease file, or move away what stands in its place."""
        try:
            unlink(path)
        except OSError:
            self._layout.quarantine("lease", path, "it is not a file")

    def _release(self, path: Path, token: str) -> None:
        # A lease that cannot be given back goes stale by itself.
        with contextlib.suppress(OSError), self._exclusive():
            holder = _read(path)
            if holder is not None and holder.get("token") == token:
                unlink(path)

    def _exclusive(self) -> AbstractContextManager[None]:
        """A lock over removals of leases, which the system lifts when its holder dies."""
        return locked(self._folder / ".lock", exclusive=True)


def new_holder(key: str, stale_after: float = STALE_AFTER) -> Holder:
    """What this process writes into a lease of `key`."""
    found = {**_myself(), "key": key, "holds": [], "stale_after": stale_after}
    return {**found, "started": now(), "token": os.urandom(16).hex()}


@contextlib.contextmanager
def heartbeat(path: Path, interval: float) -> Iterator[None]:
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
    """What a lease file says and the age of its heartbeat; None when there is no such file.

    Its first line is the lease; what its holder began to use since follows, a line each: a name that is held,
    or a JSON object (see `Held.note`) that comes under `notes`.
    """
    try:
        age = time.time() - path.stat().st_mtime
    except OSError:
        if not os.path.lexists(path):
            return None
        age = math.inf  # a link that leads nowhere
    if age < -_LONGEST:  # no heart beats in the future
        age = math.inf
    try:
        lines = (read_whole(path, _LARGEST) or b"").split(b"\n")
    except (DamagedFile, StoreError):
        lines = []
    holder = _object(lines[0]) if lines else None  # unreadable: held, until its heartbeat is too old
    known = _checked(holder or {})
    known["holds"] += [text for line in lines[1:] if is_digest(text := line.decode("ascii", "replace"))]
    notes = [note for line in lines[1:] if line.startswith(b"{") and (note := _object(line)) is not None]
    return {**known, "notes": notes, "age": max(0.0, age)}


def _object(text: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _checked(holder: Holder) -> Holder:
    """A lease without what cannot be meant: whoever wrote it, it stops nobody."""
    holds, patience, pid = holder.get("holds"), holder.get("stale_after"), holder.get("pid")
    good: Holder = {**holder, "holds": []}
    if isinstance(holds, list):
        good["holds"] = [name for name in holds if is_digest(name)]
    if not isinstance(patience, int | float) or not 0 <= patience <= _LONGEST:
        good["stale_after"] = STALE_AFTER
    if not isinstance(pid, int) or isinstance(pid, bool) or not 0 < pid < 1 << 31:
        good["pid"] = None
    return good


def _stale(holder: Holder, stale_after: float) -> bool:
    """Whether the holder's heart stopped, by its own promise and the asker's patience, or it is dead."""
    return bool(holder["age"] > max(holder["stale_after"], stale_after)) or _dead(holder)


def _here(holder: Holder) -> bool:
    """Whether the holder ran on this machine since it was started, where its pid means something."""
    me = _myself()
    same = all(holder.get(part) == me[part] for part in ("host", "boot", "space"))
    # Elsewhere than on POSIX, os.kill would end the process it asks about.
    return os.name == "posix" and holder["pid"] is not None and same


def _dead(holder: Holder) -> bool:
    """Whether the holder is known to be dead: it ran on this machine and is not here any more."""
    if not _here(holder):
        return False
    if not running(holder["pid"]):
        return True
    began = _process(holder["pid"])[1]
    return began is not None and holder.get("began") not in (None, began)


def _alive(holder: Holder) -> bool:
    """Whether the holder is known to live, by its pid and when that process began."""
    if not _here(holder) or not running(holder["pid"]):
        return False
    began = _process(holder["pid"])[1]
    return began is not None and holder.get("began") == began


def running(pid: int) -> bool:
    """Whether there is a process of that number here, which has not ended."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return _process(pid)[0] != "Z"


def began_after(pid: int, moment: float) -> bool:
    """Whether a running process began after `moment` (seconds since 1970): what is older is not its."""
    began = _process(pid)[1]
    if began is None:
        return False
    with contextlib.suppress(OSError, ValueError, IndexError):
        up = float(_first_line("/proc/uptime").split()[0])
        return time.time() - up + began / os.sysconf("SC_CLK_TCK") > moment + _CLOCKS
    return False


_CLOCKS = 5.0  # seconds by which clocks of a machine and of its file systems may differ


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
