"""What the resident process and those who talk to it have agreed on."""

from __future__ import annotations

FOLDER = "resident"  # in the store's folder
SOCKET = "socket"
LOCK = "lock"  # held by the `guda view` that the socket is of
SWITCH = "GUDA_RESIDENT"
PATIENCE = 2.0  # seconds until a command runs by itself
LOST = 1  # exit code where the resident process ended in the middle of a command

READY, GO, INTERRUPT, TERMINATE, CODE = b"R", b"G", b"I", b"T", b"C"
