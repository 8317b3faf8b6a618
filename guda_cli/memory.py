"""How much memory this machine, or the container this runs in, has."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from guda_cli.errors import UsageError
from guda_cli.phrases import human_bytes

BEYOND = 10**21  # bytes: what is larger is not written out
LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


def total() -> int | None:
    """Bytes that all programs together may use, swap included; None where the system does not say."""
    found = [size for size in (_machine(), *map(_limit, LIMITS)) if size]
    return min(found) if found else None


def check(needed: int, what: str, *, fix: str) -> None:
    """UsageError, with the estimate, where `what` needs more bytes at once than there are."""
    has = total()
    if has is not None and needed > has:
        raise UsageError(
            f"{what} ask for {human_bytes(min(needed, BEYOND))} of memory or more, "
            f"and this machine has {human_bytes(has)}",
            fix=fix,
        )


def _machine() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        sizes = {
            name: int(rest.split()[0]) << 10 for name, _, rest in (line.partition(":") for line in lines)
        }
        return sizes["MemTotal"] + sizes.get("SwapTotal", 0)
    except (OSError, ValueError, LookupError):
        pass
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None


def _limit(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):  # "max" is no number
        return None


def give_back() -> None:
    """Return to the system what was freed and the C library keeps for later, where it can (glibc)."""
    import ctypes

    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
