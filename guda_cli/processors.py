"""How many processor cores this process may use."""

from __future__ import annotations

import math
import os
from pathlib import Path

QUOTA = Path("/sys/fs/cgroup/cpu.max")


def allowed() -> int:
    """Cores that the system lets this process run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def quota(path: Path = QUOTA) -> float | None:
    """Cores' worth of time that a container may use; None without a limit."""
    try:
        given, period = path.read_text(encoding="ascii").split()
        return int(given) / int(period)
    except (OSError, ValueError, ZeroDivisionError):  # "max" is no number
        return None


def usable() -> int:
    """Cores that can be kept busy: those allowed, or fewer where a container may not use all their time."""
    limit = quota()
    return allowed() if limit is None else max(1, min(allowed(), math.ceil(limit)))
