"""How a command line goes to the resident process: one message with the streams, then its exit code.

The client sends a message; the other side answers READY where it is the same guda, and begins only when the
client says GO: who hears nothing in time goes away, and knows that nothing has been begun. The descriptors
(stdin, stdout, stderr, working directory) come with GO: one that never answers never holds them open.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import struct
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from guda_cli.plain_text import joined
from guda_cli.view.agreed import CODE, GO, INTERRUPT, LOST, PATIENCE, READY, SOCKET, SWITCH, TERMINATE
from guda_cli.view.sameness import sameness

LARGEST = 16 << 20  # bytes of a message
DESCRIPTORS = 4
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid


def run(folder: str, argv: Sequence[str]) -> int | None:
    """Hand `argv` and this process's streams over; its exit code, None where it is to be run here.

    OSError where nobody answers.
    """
    streams = {name: _stream(getattr(sys, name)) for name in ("stdin", "stdout", "stderr")}
    message = {"what": "command", "argv": list(argv), "same": sameness(), "streams": streams, **_around()}
    here = os.open(".", os.O_RDONLY | os.O_DIRECTORY)
    try:
        with connect(folder) as link:
            if not begun(link, message, (0, 1, 2, here)):
                return None
            return _watch(link)
    finally:
        os.close(here)


def connect(folder: str) -> socket.socket:
    """The process that listens in `folder`; OSError where there is none, or it is another user's."""
    link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    place = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        link.settimeout(PATIENCE)
        link.connect(f"/proc/self/fd/{place}/{SOCKET}")  # the path itself may be too long for an address
        if owner(link) != os.geteuid():
            raise PermissionError("the socket is another user's")
    except OSError:
        link.close()
        raise
    finally:
        os.close(place)
    return link


def owner(link: socket.socket) -> int:
    """The user at the other end."""
    found = link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return int(_CREDENTIALS.unpack(found)[1])


def begun(link: socket.socket, message: Mapping[str, Any], descriptors: Sequence[int]) -> bool:
    """Whether the other side has begun the work; if not, it never will. OSError likewise."""
    data = json.dumps(message).encode("utf-8", "surrogatepass")
    link.sendall(struct.pack("!I", len(data)) + data)
    if link.recv(1) != READY:
        return False
    socket.send_fds(link, [GO], list(descriptors))
    link.settimeout(None)
    return True


def received(link: socket.socket) -> dict[str, Any]:
    """A message; ValueError or OSError where it is none."""
    size = struct.unpack("!I", _exactly(link, 4))[0]
    if size > LARGEST:
        raise ValueError("too long a message")
    found = json.loads(_exactly(link, size).decode("utf-8", "surrogatepass"))
    if not isinstance(found, dict):
        raise ValueError("not a message")
    return found


def agreed(link: socket.socket) -> list[int]:
    """Answer READY; the descriptors of the client's GO, ValueError or OSError where it does not say so."""
    link.sendall(READY)
    said, descriptors, _, _ = socket.recv_fds(link, 1, DESCRIPTORS)
    if said != GO or len(descriptors) != DESCRIPTORS:
        for descriptor in descriptors:
            os.close(descriptor)
        raise ValueError("the streams did not come along")
    return descriptors


def _exactly(link: socket.socket, size: int) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        part = link.recv(min(1 << 16, size - len(parts)))
        if not part:
            raise ValueError("the other side went away")
        parts += part
    return bytes(parts)


def _watch(link: socket.socket) -> int:
    """Wait for the exit code; Ctrl-C and SIGTERM go to the process that does the work."""

    def passed_on(number: int, frame: object) -> None:
        with contextlib.suppress(OSError):  # it has ended: the code, or its lack, says how
            link.sendall(INTERRUPT if number == signal.SIGINT else TERMINATE)

    wanted = [signal.SIGTERM]
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # as it is of what a script left running
        wanted.append(signal.SIGINT)
    before = {number: signal.signal(number, passed_on) for number in wanted}
    try:
        code = ended(link)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if code is None:
        print(
            "error: the resident process ended in the middle of the command\n"
            f"  try: {SWITCH}=0 {joined(['guda', *sys.argv[1:]])}",
            file=sys.stderr,
        )
        return LOST
    return code


def ended(link: socket.socket) -> int | None:
    """The exit code of what was begun; None where the process that did it was lost."""
    found = b""
    try:
        while len(found) < 2:
            part = link.recv(2 - len(found))
            if not part:
                return None
            found += part
    except OSError:
        return None
    return found[1] if found[:1] == CODE else None


def _stream(stream: Any) -> list[Any]:
    return [stream.encoding, stream.errors, stream.line_buffering, stream.write_through]


def _around() -> dict[str, Any]:
    """What a command sees of the process it runs in."""
    import resource

    mask = os.umask(0o077)
    os.umask(mask)
    limits = {getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")}
    return {
        "environment": dict(os.environ),
        "umask": mask,
        "nice": os.getpriority(os.PRIO_PROCESS, 0),
        "limits": [[number, resource.getrlimit(number)[0]] for number in sorted(limits)],
    }
