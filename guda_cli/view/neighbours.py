"""Whose connection it is: other users of this machine are not served, whatever they know."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

HERE = "127.0.0.1"
_TABLES = (("/proc/net/tcp", ""), ("/proc/net/tcp6", "0000000000000000FFFF0000"))  # and IPv4 within IPv6
_LOCAL, _REMOTE, _USER = 1, 2, 7  # fields of a line


def foreign(port: int, host: str, from_port: int) -> bool:
    """Whether a connection from `host`, `from_port` to `port` of this machine is another user's, not root's.

    False where the system does not say: only Linux does.
    """
    user = user_of(port, host, from_port)
    return user is not None and user not in (0, os.geteuid())


def user_of(port: int, host: str, from_port: int) -> int | None:
    """The user who made the socket at the other end; None where that is not known."""
    for table, prefix in _TABLES:
        wanted = [prefix + _address(host, from_port), prefix + _address(HERE, port)]
        try:
            lines = Path(table).read_text(encoding="ascii").splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if fields[_LOCAL : _REMOTE + 1] == wanted:
                return int(fields[_USER])
    return None


def _address(host: str, port: int) -> str:
    """As /proc writes it: a number in the machine's order of bytes."""
    return f"{int.from_bytes(socket.inet_aton(host), sys.byteorder):08X}:{port:04X}"
