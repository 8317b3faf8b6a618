"""The light end of the resident process: a command line is handed over, with the streams it writes to.

Imports nothing of guda, and nothing heavy: this runs before every `guda score`.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Sequence

from guda_cli.view.agreed import FOLDER, SOCKET, SWITCH

COMMANDS = ("score",)  # whose answers are the same, whichever process works them out


def run(args: Sequence[str]) -> int | None:
    """Have the resident process of the store run a command line; its exit code.

    None where there is no such process, or not the same guda, or it is busy: nothing has been done then, and
    the command is to be run here.
    """
    if not args or args[0] not in COMMANDS or not _possible():
        return None
    folder = os.path.join(store_of(args), FOLDER)  # noqa: PTH118 - pathlib costs more than all of this
    if not mine(folder):
        return None
    from guda_cli.view import handing_over

    try:
        return handing_over.run(folder, list(sys.argv))
    except OSError:
        return None  # nobody answers


def _possible() -> bool:
    if not sys.platform.startswith("linux") or os.environ.get(SWITCH, "").strip() == "0":
        return False
    if os.environ.get("WORLD_SIZE", "1") != "1":  # one of several processes that work together
        return False
    try:
        return [stream.fileno() for stream in (sys.stdin, sys.stdout, sys.stderr)] == [0, 1, 2]
    except (AttributeError, OSError, ValueError):  # closed, or not a file
        return False


def store_of(args: Sequence[str]) -> str:
    """The folder of the store, as far as it can be told without reading options in full.

    A wrong guess costs time and no more: whoever runs the command finds out by itself.
    """
    named = os.environ.get("GUDA_STORE", "")
    for here, following in zip(args, [*args[1:], ""], strict=True):
        if here == "--store":
            named = following
        elif here.startswith("--store="):
            named = here.removeprefix("--store=")
    if named:
        return os.path.expanduser(named)  # noqa: PTH111
    folder = os.getcwd()  # noqa: PTH109
    while not os.path.isfile(os.path.join(folder, ".guda", "format.json")):  # noqa: PTH113, PTH118
        above = os.path.dirname(folder)  # noqa: PTH120
        if above == folder:
            break
        folder = above
    return os.path.join(folder, ".guda")  # noqa: PTH118


def mine(folder: str) -> bool:
    """Whether a socket lies in `folder`, and both are this user's and nobody else's."""
    try:
        place, file = os.lstat(folder), os.lstat(os.path.join(folder, SOCKET))  # noqa: PTH118
    except OSError:
        return False
    private = all(found.st_uid == os.geteuid() and not found.st_mode & 0o077 for found in (place, file))
    return private and stat.S_ISDIR(place.st_mode) and stat.S_ISSOCK(file.st_mode)
