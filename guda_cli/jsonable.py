"""Values as JSON knows them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from guda_cli.plain_text import spelled, unicode


def plain(value: Any) -> Any:
    """`value` with nothing but what strict JSON knows.

    NaN and infinities become None; numpy scalars and arrays are unpacked; sets are sorted by their text, so
    that equal ones read alike; paths, and text that UTF-8 cannot encode, are spelled as `plain_text.spelled`
    says, so that no two become one. Keys become text. Counts of network forwards, which estimates leave in
    parts, are whole. Raises TypeError for what has no place in a document.
    """
    if isinstance(value, Mapping):
        keys = [str(key) for key in value]
        if any(unicode(key) != key for key in keys):
            keys = [spelled(key) for key in keys]
        items = map(plain, value.values())
        return {key: _whole(key, item) for key, item in zip(keys, items, strict=True)}
    if isinstance(value, (set, frozenset)):
        return [plain(item) for item in sorted(value, key=str)]
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, str):
        return unicode(value)
    if value is None or isinstance(value, int):
        return value
    if isinstance(value, PurePath):
        return spelled(str(value))
    if hasattr(value, "tolist"):  # numpy scalars and arrays
        return plain(value.tolist())
    raise TypeError(f"{type(value).__name__} has no place in a JSON document")


COUNTS = ("forwards", "prepare_forwards", "query_forwards")


def _whole(key: str, value: Any) -> Any:
    return round(value) if key in COUNTS and isinstance(value, float) else value


def canonical(values: Any) -> bytes:
    """JSON with sorted keys, no spaces and ASCII alone: equal values give equal bytes."""
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return text.encode("ascii")
