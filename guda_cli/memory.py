"""How much memory this machine, or the container this runs in, has."""

from __future__ import annotations

import os
from pathlib import Path

from guda_cli.errors import UsageError
from guda_cli.phrases import human_bytes

BEYOND = 10**21  # bytes: what is larger is not written out
NO_MEMORY = (
    "out of memory", "not enough memory", "can't allocate memory", "cannot allocate memory", "bad_alloc",
    "status_alloc_failed",
)  # fmt: skip
NO_SCRATCH = ("could not create a primitive", "could not execute a primitive")  # oneDNN's, and no more
LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
_USED = {"memory.max": "memory.current", "memory.limit_in_bytes": "memory.usage_in_bytes"}


def total() -> int | None:
    """Bytes that all programs together may use, swap included; None where the system does not say."""
    found = [size for size in (_machine(), *map(_limit, LIMITS)) if size]
    return min(found) if found else None


def available() -> int | None:
    """Bytes that can be taken now without swapping; None where the system does not say."""
    found = [_field("MemAvailable"), *(_left(limit) for limit in LIMITS)]
    return min((size for size in found if size is not None), default=None)


def check(needed: int, what: str, *, fix: str) -> None:
    """UsageError, with the estimate, where `what` needs more bytes at once than there are."""
    has = total()
    if has is not None and needed > has:
        raise UsageError(
            f"{what} ask for {human_bytes(min(needed, BEYOND))} of memory or more, "
            f"and this machine has {human_bytes(has)}",
            fix=fix,
        )


def ran_out(err: BaseException) -> bool:
    """Whether `err` says that memory, the machine's or a GPU's, did not suffice."""
    text = str(err).lower() if isinstance(err, RuntimeError) else ""
    told = any(words in text for words in NO_MEMORY) or text.endswith(NO_SCRATCH)
    return told or isinstance(err, MemoryError)


def _field(name: str) -> int | None:
    """Bytes that /proc/meminfo says under that name."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        sizes = {key: int(rest.split()[0]) << 10 for key, _, rest in (line.partition(":") for line in lines)}
    except (OSError, ValueError, LookupError):
        return None
    return sizes.get(name)


def _left(limit: Path) -> int | None:
    """What a container has left of a limit: what it uses stands in a file beside it."""
    most, used = _limit(limit), _limit(limit.with_name(_USED[limit.name]))
    return None if most is None or used is None else max(0, most - used)


def _machine() -> int | None:
    memory = _field("MemTotal")
    if memory is not None:
        return memory + (_field("SwapTotal") or 0)
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None


def _limit(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):  # "max" is no number
        return None
