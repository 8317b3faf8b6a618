"""Where the pages' work is done: in forks of the resident process, or else in new processes."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from guda_cli.view import handing_over
from guda_cli.view.agreed import FOLDER, LOCK, SOCKET
from guda_cli.view.sameness import sameness

LARGEST = 256 << 20  # bytes of an answer
_STREAM = ("utf-8", "backslashreplace", False, False)
LOADING = 120.0  # seconds that the resident process has to load its packages


@dataclass
class Done:
    """How a command ended, and what it wrote."""

    code: int
    out: bytes
    err: bytes


@dataclass
class Worker:
    """Runs jobs and commands on one store; starts the resident process and ends it.

    It listens in a folder of the store, unless another `guda view` has that, or it is not this user's alone.
    """

    store: Path
    device: str
    last: float = field(default_factory=time.monotonic)  # when somebody last asked for something
    public: bool = False
    """Whether `guda score` finds it."""
    _folder: Path | None = None
    _lock: int | None = None
    _link: socket.socket | None = None
    _process: subprocess.Popen[bytes] | None = None
    _loaded: threading.Event = field(default_factory=threading.Event)

    def start(self) -> None:
        """Begin to load; does nothing where a process cannot be forked safely (only Linux does)."""
        if not sys.platform.startswith("linux"):
            self._loaded.set()
            return
        self._folder = self._place()
        self._link, theirs = socket.socketpair()
        # -P: no module is taken from the folder that this happens to run in
        module = ["-P", "-m", "guda_cli.view.resident"]
        command = [sys.executable, *module, str(self._folder), str(theirs.fileno())]
        self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
        theirs.close()
        threading.Thread(target=self._listen, daemon=True).start()

    def _place(self) -> Path:
        wanted = self.store / FOLDER
        self._lock = _locked(wanted)
        if self._lock is None:
            return Path(tempfile.mkdtemp(prefix="guda-view-"))
        self.public = True
        return wanted

    def _listen(self) -> None:
        assert self._link is not None
        try:
            while self._link.recv(64):
                self.last = time.monotonic()
                if not self._loaded.is_set():
                    self._loaded.set()
                    with contextlib.suppress(OSError):
                        self.job("rehearse")
        except OSError:
            pass
        self._loaded.set()  # it is gone: nobody is to wait for it

    def end(self) -> None:
        """End the resident process; commands that it runs go on by themselves."""
        if self._link is not None:
            with contextlib.suppress(OSError):
                self._link.shutdown(socket.SHUT_RDWR)  # which also wakes the thread that listens
            self._link.close()
        if self._process is not None:
            if not self._loaded.is_set():
                self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if self._folder is not None and not self.public:
            shutil.rmtree(self._folder, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    @property
    def idle(self) -> float:
        """Seconds since somebody asked for something."""
        return time.monotonic() - self.last

    # -- work --------------------------------------------------------------------------------------

    def job(self, name: str, where: Path | None = None, **wanted: str) -> tuple[int, dict[str, Any]]:
        """The exit code and the answer of one of `jobs.JOBS`, run in the folder `where`."""
        request = {"job": name, "store": str(self.store), "device": self.device, **wanted}
        done = self._run("job", ["guda view", json.dumps(request)], where)
        try:
            answer = json.loads(done.out)
        except ValueError:
            why = done.err.decode("utf-8", "replace").strip().rpartition("\n")[2]
            return done.code or 1, {"error": "this did not work", "why": why, "fix": ""}
        return done.code, answer

    def command(self, args: Sequence[str]) -> Done:
        """A command of guda on the store."""
        return self._run("command", ["guda", *args, "--store", str(self.store)], None)

    def _run(self, what: str, argv: Sequence[str], where: Path | None) -> Done:
        self.last = time.monotonic()
        self._loaded.wait(LOADING)
        folder = where or Path.cwd()
        done = self._handed_over(what, argv, folder)
        if done is None:
            module = "guda_cli.app" if what == "command" else "guda_cli.view.jobs"
            code = f"import sys; from {module} import run; sys.exit(run(sys.argv[1:]))"
            found = subprocess.run(
                [sys.executable, "-P", "-c", code, *argv[1:]],  # -P: a picture may be called numpy.py
                cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, check=False,
            )  # fmt: skip
            done = Done(found.returncode, found.stdout, found.stderr)
        self.last = time.monotonic()
        return done

    def _handed_over(self, what: str, argv: Sequence[str], where: Path) -> Done | None:
        """By a fork of the resident process; None where that cannot be."""
        if self._folder is None:
            return None
        streams = dict.fromkeys(("stdin", "stdout", "stderr"), _STREAM)
        message: Mapping[str, Any] = {
            "what": what,
            "argv": list(argv),
            "same": sameness(),
            "streams": streams,
        }
        with contextlib.ExitStack() as stack:
            out, err = (stack.enter_context(tempfile.TemporaryFile()) for _ in range(2))
            nothing = stack.enter_context(Path(os.devnull).open("rb"))
            here = os.open(where, os.O_RDONLY | os.O_DIRECTORY)
            stack.callback(os.close, here)
            try:
                link = stack.enter_context(handing_over.connect(str(self._folder)))
                link.settimeout(None)
                descriptors = (nothing.fileno(), out.fileno(), err.fileno(), here)
                if not handing_over.begun(link, message, descriptors):
                    return None
            except OSError:
                return None
            code = handing_over.ended(link)
            return Done(1 if code is None else code, _content(out), _content(err))


def _content(file: IO[bytes]) -> bytes:
    file.seek(0)
    return file.read(LARGEST)


def _locked(folder: Path) -> int | None:
    """A descriptor that holds `folder` for this process, without the socket of one that was killed.

    None where it is held already (also by another machine), another user's, a link, or not to be written.
    """
    import fcntl

    with contextlib.suppress(OSError):
        folder.mkdir(mode=0o700)
    with contextlib.ExitStack() as stack:
        try:
            place = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            stack.callback(os.close, place)
            if os.fstat(place).st_uid != os.geteuid():
                return None
            os.fchmod(place, 0o700)
            lock = os.open(LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600, dir_fd=place)
        except OSError:
            return None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            free = True
        except BlockingIOError:
            free = False
        except OSError:  # a file system without locks
            free = not _answers(folder)
        if not free:
            os.close(lock)
            return None
        with contextlib.suppress(OSError):
            os.unlink(SOCKET, dir_fd=place)
        return lock


def _answers(folder: Path) -> bool:
    """Whether a resident process listens in a folder."""
    try:
        handing_over.connect(str(folder)).close()
    except OSError:
        return False
    return True


@contextlib.contextmanager
def started(store: Path, device: str) -> Iterator[Worker]:
    """A worker for as long as the body runs."""
    worker = Worker(store, device)
    worker.start()
    try:
        yield worker
    finally:
        worker.end()
