"""The standard streams as every command needs them: there, able to write any text, and failing by a name."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import TextIO

from guda_cli import plain_text
from guda_cli.errors import GudaError


class OutputError(GudaError):
    """Standard output that takes no more: a full disk, or not opened to be written."""

    exit_code = 3


class Output(io.TextIOWrapper):
    """Standard output, whoever writes to it: OutputError where it fails, BrokenPipeError without a reader."""

    def write(self, text: str, /) -> int:
        """As usual; what is written may fail only at the next `flush`."""
        with _named():
            return super().write(text)

    def flush(self) -> None:
        """Likewise."""
        with _named():
            super().flush()


def use() -> None:
    """Let standard output and error write whatever text they are given, and input read whatever names."""
    plain_text.register()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=plain_text.ERRORS)
    if isinstance(sys.stdin, io.TextIOWrapper):
        with contextlib.suppress(io.UnsupportedOperation):  # it has been read from
            sys.stdin.reconfigure(errors="surrogateescape")
    out = sys.stdout
    if isinstance(out, io.TextIOWrapper) and not isinstance(out, Output):
        form = (out.encoding, plain_text.ERRORS, "\n", out.line_buffering, out.write_through)
        sys.stdout = sys.__stdout__ = Output(out.detach(), *form)  # type: ignore[misc]


def silence(stream: TextIO) -> None:
    """Let what is left to be written to `stream` go nowhere: the interpreter's end must not complain."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


@contextlib.contextmanager
def _named() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        # Without its number: the parser of the command line would end the program with a code of its own.
        raise BrokenPipeError("nobody reads standard output any more") from None
    except OSError as err:
        raise OutputError(
            "cannot write to standard output",
            why=err.strerror or str(err),
            fix="the same command again, to another file or disk",
        ) from None
