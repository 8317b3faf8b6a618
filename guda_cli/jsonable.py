"""Values as JSON knows them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any


def plain(value: Any) -> Any:
    """`value` with nothing but what strict JSON knows.

    NaN and infinities become None; numpy scalars and arrays are unpacked; sets are sorted by their text, so
    that equal ones read alike; in text what UTF-8 cannot encode becomes `?`. Keys become text and stay as
    they are: two must not become one. Raises TypeError for what has no place in a document.
    """
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (set, frozenset)):
        return [plain(item) for item in sorted(value, key=str)]
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    if value is None or isinstance(value, int):
        return value
    if isinstance(value, PurePath):
        return plain(str(value))
    if hasattr(value, "tolist"):  # numpy scalars and arrays
        return plain(value.tolist())
    raise TypeError(f"{type(value).__name__} has no place in a JSON document")


def canonical(values: Any) -> bytes:
    """JSON with sorted keys, no spaces and ASCII alone: equal values give equal bytes."""
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return text.encode("ascii")
