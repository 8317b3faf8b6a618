"""Named moments of publishing at which the crash tests kill the process.

`GUDA_TEST_CRASH_AT="name:n"` sends SIGKILL to the process itself at its n-th pass of point `name`.
Without that variable a point is one comparison.
"""

from __future__ import annotations

import os

POINTS = (
    "before-write",
    "after-write",
    "after-fsync",
    "after-rename",
    "record-before-rename",
    "record-after-rename",
    "state-before-rename",
    "state-between-renames",
    "state-after-rename",
    "table-before-rename",
    "table-after-rename",
    "segment-before-rename",
    "segment-after-rename",
    "document-before-rename",
    "document-after-rename",
    "pin-before-rename",
    "pin-after-rename",
    "compact-before-merge",
    "compact-after-merge",
    "compact-between-removals",
    "gc-between-removals",
    "format-before-rename",
    "format-after-rename",
)

_TARGET = os.environ.get("GUDA_TEST_CRASH_AT")
_passes: dict[str, int] = {}


def point(name: str) -> None:
    """Pass the point `name`; dies here when the environment asks for it."""
    if _TARGET is not None:
        _maybe_die(name, _TARGET)


def _maybe_die(name: str, target: str) -> None:
    wanted, _, count = target.partition(":")
    if wanted not in POINTS:
        raise ValueError(f"GUDA_TEST_CRASH_AT names no crash point: {target!r}")
    if name != wanted:
        return
    _passes[name] = _passes.get(name, 0) + 1
    if _passes[name] == int(count or 1):
        import signal

        os.kill(os.getpid(), signal.SIGKILL)
