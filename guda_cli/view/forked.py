"""The life of one command in a fork of the resident process."""

from __future__ import annotations

import atexit
import importlib
import io
import json
import os
import resource
import signal
import socket
import sys
import tempfile
import threading
import traceback
from collections.abc import Sequence
from typing import Any, NoReturn, TextIO

from guda_cli import failures, standard_streams
from guda_cli.store.memory import Memory
from guda_cli.view import handing_over
from guda_cli.view.agreed import CODE, INTERRUPT, PATIENCE, TERMINATE

MODULE = "module"
RUNNERS = {"command": "guda_cli.app", "job": "guda_cli.view.jobs"}  # modules with a function `run(args)`
# Loaded by one command, they are loaded for all that follow.
_KEPT = {
    "PIL", "accelerate", "diffusers", "guda_cli", "h5py", "numpy", "peft", "rich", "safetensors", "scipy",
    "sklearn", "tokenizers", "torch", "transformers", "typer", "yaml",
}  # fmt: skip


def live(link: socket.socket, same: str, kept: Memory, report: int) -> NoReturn:
    """Take a message, do what it says, send the exit code; `report` is told what had to be read."""
    code = 1
    try:
        before = set(sys.modules)
        kept.missed.clear()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.setsid()  # Ctrl-C in the terminal of `guda view` is not meant for it
        message = _agreed(link, same)
        if message is not None:
            code = _run(link, message)
            _tell(report, [(MODULE, name) for name in sys.modules if _worth_keeping(name, before)], kept)
    except BaseException:  # noqa: BLE001 - the outermost frame of a process
        traceback.print_exc()
    os._exit(code)


def _worth_keeping(name: str, before: set[str]) -> bool:
    return name not in before and name.partition(".")[0] in _KEPT


def _agreed(link: socket.socket, same: str) -> dict[str, Any] | None:
    """The message, its streams taken over, once the client has let it begin; None where it is not to be."""
    link.settimeout(PATIENCE)
    try:
        message = handing_over.received(link)
        if message["same"] != same or message["what"] not in RUNNERS or not _limited(message):
            return None
        *streams, here = handing_over.agreed(link)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    link.settimeout(None)
    for own, stream in enumerate(streams):
        os.dup2(stream, own)
        os.close(stream)
    os.fchdir(here)
    os.close(here)
    return message


def _limited(message: dict[str, Any]) -> bool:
    """Take over what the client may use, and its niceness; False where that is more than is to be had."""
    for number, soft in message.get("limits", []):
        hard = resource.getrlimit(number)[1]
        if hard != resource.RLIM_INFINITY and not 0 <= soft <= hard:
            return False
        resource.setrlimit(number, (soft, hard))
    own = os.getpriority(os.PRIO_PROCESS, 0)
    os.setpriority(os.PRIO_PROCESS, 0, max(own, message.get("nice", own)))
    return True


def _run(link: socket.socket, message: dict[str, Any]) -> int:
    """Run the command as a process of its own would; its exit code, sent as soon as all is written."""
    if "environment" in message:
        os.environ.clear()
        os.environ.update(message["environment"])
        os.umask(message["umask"])
    sys.argv[:] = message["argv"]
    tempfile.tempdir = None
    for own, name in enumerate(("stdin", "stdout", "stderr")):
        opened = _opened(own, *message["streams"][name])
        setattr(sys, name, opened)
        setattr(sys, f"__{name}__", opened)
    standard_streams.use()
    failures.terminate_like_interrupt()
    at_work = threading.Event()
    at_work.set()
    threading.Thread(target=_obey, args=(link, at_work), daemon=True).start()
    try:
        code = _ended(_code_of(RUNNERS[message["what"]]))
    except KeyboardInterrupt:  # when all was done
        code = 130
    at_work.clear()
    nowhere = os.open(os.devnull, os.O_RDWR)
    for own in (0, 1, 2):
        os.dup2(nowhere, own)  # whoever reads them is to see their end
    link.sendall(CODE + bytes([code & 0xFF]))
    return code


def _code_of(runner: str) -> int:
    try:
        return int(importlib.import_module(runner).run(sys.argv[1:]))
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException as err:  # noqa: BLE001 - as the interpreter would tell it
        traceback.print_exc()
        return 130 if isinstance(err, KeyboardInterrupt) else 1


def _ended(code: int) -> int:
    """Do what the interpreter does at its end, which can make another exit code of `code`."""
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            code = code or 120  # it cannot write what is left
    return code


def _opened(descriptor: int, encoding: str, errors: str, line_buffering: bool, through: bool) -> TextIO:
    """A standard stream as the interpreter opens it."""
    raw = open(descriptor, "rb" if descriptor == 0 else "wb", closefd=False)  # noqa: SIM115
    return io.TextIOWrapper(raw, encoding, errors, "\n", line_buffering, through)


def _obey(link: socket.socket, at_work: threading.Event) -> None:
    """Be interrupted when the client is, and ended when it is gone, as long as there is work."""
    while True:
        try:
            said = link.recv(1)
        except OSError:
            said = b""
        if not at_work.is_set():
            return
        if said == INTERRUPT:
            os.kill(os.getpid(), signal.SIGINT)
        else:
            os.kill(os.getpid(), signal.SIGTERM)
            if said != TERMINATE:
                return


def _tell(report: int, modules: Sequence[tuple[str, str]], kept: Memory) -> None:
    """Say what had to be read, so that it need not be read again."""
    data = json.dumps([*modules, *kept.missed]).encode("utf-8", "surrogatepass")
    with os.fdopen(report, "wb") as pipe:
        pipe.write(data)


def parse(data: bytes | bytearray) -> list[tuple[str, str]] | None:
    """The inverse of what a fork says; None where it said nothing."""
    try:
        return [
            (str(maker), str(place)) for maker, place in json.loads(data.decode("utf-8", "surrogatepass"))
        ]
    except ValueError:
        return None
