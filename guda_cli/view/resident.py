"""The resident process: it has the packages and models in memory, and forks itself for every command.

A fork has a life of its own: streams, environment, working directory, `sys.argv` and signals are those of
the client, so a command does what it always does, and nothing of it stays behind. What stays is what files
of the store were made into (`store.memory`): a command that had to read more says what, and it is read again
here.

This process runs one thread of Python while it forks, and no parallel region ever: threads do not survive a
fork. (Those of OpenBLAS end before it and begin again after it, which OpenBLAS sees to.)
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import socket
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

from guda_cli.light_imports import light_import
from guda_cli.store.memory import Memory, keep
from guda_cli.view import forked, handing_over
from guda_cli.view.agreed import SOCKET
from guda_cli.view.sameness import sameness

MODULES = (
    "guda_cli.app",
    "guda_cli.commands.score",
    "guda_cli.commands.report",
    "guda_cli.workflow.models.loaded",
    "guda_cli.workflow.scoring.counterfactual_run",
    "guda_cli.workflow.scoring.instance_run",
    "guda_cli.workflow.scoring.terms",
    "guda_cli.workflow.reporting.answers_report",
    "guda_cli.report.answers.page",
    "guda_cli.report.answers.terminal",
    "guda_cli.view.jobs",
    "diffusers.models.unets.unet_2d",
    "rich.console",
    "h5py",
)
OF_MEMORY = 0.5  # of the machine's, at most, for what is kept
STARTED, SERVED = b"s", b"c"


def serve(folder: Path, parent: socket.socket) -> None:
    """Serve commands on a socket in `folder` until `parent` closes its end; to be run first in a process.

    STARTED is sent when all is loaded, SERVED for every command.
    """
    same = sameness()  # of the code that is loaded now, not of what may be there later
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of the terminal; the parent says when to end
    for name in MODULES:
        light_import(name)
    Resident(keep(int(OF_MEMORY * _memory())), same, parent).run(folder)


class Resident:
    """The loop: connections, forks, and what forks found missing."""

    def __init__(self, kept: Memory, same: str, parent: socket.socket) -> None:
        self.kept, self.same, self.parent = kept, same, parent
        self.most = 1 + len(os.sched_getaffinity(0))  # forks at once: one may be the rehearsal, or at its end
        self.running: dict[int, int] = {}  # pid by the pipe on which a fork says what was missing
        self.said: dict[int, bytearray] = {}
        self.missing: deque[tuple[str, str]] = deque()
        self.seen: set[tuple[str, str]] = set()

    def run(self, folder: Path) -> None:
        """Until the parent goes."""
        with listening(folder) as listener:
            self.listener = listener
            self._say(STARTED)
            while True:
                waiting = [self.parent.fileno(), listener.fileno(), *self.running]
                ready, _, _ = select.select(waiting, [], [], 0 if self.missing else None)
                for pipe in [fd for fd in ready if fd in self.running]:
                    self._listen(pipe)
                if listener.fileno() in ready:
                    with contextlib.suppress(OSError):  # too many files are open
                        self._accept()
                elif not ready and self.missing:
                    self._recall(*self.missing.popleft())
                if self.parent.fileno() in ready and self._left_alone():
                    return

    def _left_alone(self) -> bool:
        try:
            return not self.parent.recv(64)
        except OSError:
            return True

    def _accept(self) -> None:
        link, _ = self.listener.accept()
        with link:
            if handing_over.owner(link) != os.geteuid() or len(self.running) >= self.most:
                return
            reading, writing = os.pipe()
            gc.freeze()  # what is there already is not to be copied by looking for garbage
            try:
                pid = os.fork()
            except OSError:  # no memory, or too many processes: the command works by itself
                os.close(reading)
                os.close(writing)
                return
            if pid == 0:
                self._leave_to_parent(reading)
                forked.live(link, self.same, self.kept, writing)
            os.close(writing)
            self.running[reading], self.said[reading] = pid, bytearray()

    def _leave_to_parent(self, reading: int) -> None:
        """In the fork: none of this is its own."""
        for pipe in (reading, *self.running):
            os.close(pipe)
        self.listener.close()
        self.parent.close()

    def _listen(self, pipe: int) -> None:
        part = os.read(pipe, 1 << 16)
        self.said[pipe] += part
        if part:
            return
        os.waitpid(self.running.pop(pipe), 0)
        os.close(pipe)
        told = forked.parse(self.said.pop(pipe))
        if told is None:
            return  # it was nothing, or it was killed
        self.missing += [one for one in dict.fromkeys(told) if one not in self.missing]
        self._say(SERVED)

    def _say(self, what: bytes) -> None:
        with contextlib.suppress(OSError):  # it has gone: the loop sees it too
            self.parent.sendall(what)

    def _recall(self, maker: str, place: str) -> None:
        """Read, or import, what a fork found missing, in a thread, which takes its own threads with it."""
        thread = threading.Thread(target=_quietly, args=(lambda: self._remember(maker, place),))
        thread.start()
        thread.join()
        if not self.missing:
            self.kept.forget_stale()
            self.kept.missed.clear()

    def _remember(self, maker: str, place: str) -> None:
        if maker == forked.MODULE:
            light_import(place)
        else:
            self.kept.recall(maker, place)


@contextlib.contextmanager
def listening(folder: Path) -> Iterator[socket.socket]:
    """A socket in `folder` that only this user reaches; gone afterwards."""
    folder.mkdir(mode=0o700, exist_ok=True)
    place = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        os.fchmod(place, 0o700)
        address = f"/proc/self/fd/{place}/{SOCKET}"  # the path itself may be too long
        with contextlib.suppress(FileNotFoundError):
            os.unlink(SOCKET, dir_fd=place)  # of a process that was killed
        before = os.umask(0o177)
        try:
            listener.bind(address)
        finally:
            os.umask(before)
        mine = os.stat(SOCKET, dir_fd=place, follow_symlinks=False).st_ino
        listener.listen(16)
        yield listener
        with contextlib.suppress(OSError):
            if os.stat(SOCKET, dir_fd=place, follow_symlinks=False).st_ino == mine:
                os.unlink(SOCKET, dir_fd=place)
    finally:
        listener.close()
        os.close(place)


def _quietly(work: Callable[[], None]) -> None:
    """What cannot be read now will be read by whoever needs it, who then says what is wrong."""
    with contextlib.suppress(Exception):
        work()


def _memory() -> int:
    """Bytes of memory of the machine, or of the container if that has less."""
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):  # "max": none
            found.append(int(Path(limit).read_text()))
    return min(found)


def main() -> None:
    """`python -m guda_cli.view.resident FOLDER DESCRIPTOR`: as `guda view` starts it."""
    serve(Path(sys.argv[1]), socket.socket(fileno=int(sys.argv[2])))


if __name__ == "__main__":
    main()
