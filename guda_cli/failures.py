"""From any exception to one error with a text, a remedy and an exit code."""

from __future__ import annotations

import errno
import os
import signal
import sys
import traceback
from types import FrameType

from guda_cli import memory, plain_text
from guda_cli.console import Console
from guda_cli.errors import (
    BusyError,
    CorruptError,
    DataError,
    GudaError,
    MissingError,
)
from guda_cli.standard_streams import OutputError, silence

BROKEN_PIPE = 128 + 13  # what a program killed by SIGPIPE ends with
_FULL = (errno.ENOSPC, errno.EDQUOT)
_STORE_CODES: dict[str, type[GudaError]] = {
    "StoreMissing": MissingError,
    "CorruptBlob": CorruptError,
    "MissingBlob": CorruptError,
    "LeaseBusy": BusyError,
}


class Interrupted(GudaError):  # noqa: N818
    """Ctrl-C (130) or SIGTERM (143)."""

    def __init__(self, exit_code: int, *, resumable: bool) -> None:
        tail = "; state saved, run the same command to go on" if resumable else ""
        super().__init__("interrupted" + tail)
        self.exit_code = exit_code


class Terminated(KeyboardInterrupt):
    """SIGTERM, so that whatever saves its state on Ctrl-C does it here too."""


def terminate_like_interrupt() -> None:
    """Let SIGTERM raise `Terminated` in the main thread."""

    def handler(signum: int, frame: FrameType | None) -> None:
        raise Terminated

    signal.signal(signal.SIGTERM, handler)


def debugging() -> bool:
    """Whether tracebacks are wanted: GUDA_DEBUG (set by --debug) is neither empty nor 0."""
    return os.environ.get("GUDA_DEBUG", "") not in ("", "0")


def report(err: BaseException, console: Console, *, resumable: bool = False) -> int:
    """Tell the user about `err` and return the exit code."""
    if isinstance(err, BrokenPipeError):
        return _quiet_end()
    if isinstance(err, OutputError):
        silence(sys.stdout)
    if debugging():
        sys.stderr.write(plain_text.lines("".join(traceback.format_exception(err))))
    known = explain(err, resumable=resumable)
    if isinstance(known, Interrupted):
        console.say(known.message)
        return known.exit_code
    try:
        console.error(known)
    except BrokenPipeError:
        return _quiet_end()
    except OutputError:  # of the document about the error: it has been told on stderr
        silence(sys.stdout)
    return known.exit_code


def explain(err: BaseException, *, resumable: bool = False) -> GudaError:
    """The error a user is told about when `err` ends a command."""
    if isinstance(err, GudaError):
        return err
    if isinstance(err, KeyboardInterrupt):
        return Interrupted(143 if isinstance(err, Terminated) else 130, resumable=resumable)
    stored = _store_error(err)
    if stored:
        return stored
    if memory.ran_out(err):
        return DataError(
            "not enough memory",
            why=str(err).splitlines()[0] if str(err) else "",
            fix="a smaller batch, fewer images at once, or a machine with more memory",
        )
    if isinstance(err, OSError) and err.errno is not None:
        return _os_error(err)
    return GudaError(
        f"this is a bug: {type(err).__name__}: {err}".rstrip(": "),
        fix="run the command again with --debug and report what it prints",
    )


def _store_error(err: BaseException) -> GudaError | None:
    store = sys.modules.get("guda_cli.store")
    if store is None or not isinstance(err, store.StoreError):
        return None
    kinds = (_STORE_CODES[c.__name__] for c in type(err).__mro__ if c.__name__ in _STORE_CODES)
    kind = next(kinds, DataError)
    return kind(err.message, why=err.why, fix=err.fix)


def _os_error(err: OSError) -> GudaError:
    where = f" {err.filename}" if err.filename else ""
    if err.errno in _FULL:
        return DataError(
            f"the disk is full{':' if where else ''}{where}",
            why="what was stored before is unharmed; guda store gc shows what could go; then the same "
            "command goes on",
            fix="guda store gc",
        )
    return DataError(f"cannot use{where or ' a file'}: {err.strerror or err}")


def _quiet_end() -> int:
    """The reader of stdout is gone."""
    silence(sys.stdout)
    return BROKEN_PIPE
