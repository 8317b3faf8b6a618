"""Arrays as the store keeps them where they are not rows of a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np


def pack(arrays: Mapping[str, Any]) -> bytes:
    """Arrays as safetensors."""
    from safetensors.numpy import save

    return bytes(save({name: np.ascontiguousarray(arrays[name]) for name in sorted(arrays)}))


def unpack(data: bytes) -> dict[str, Any]:
    """The inverse of `pack`."""
    from safetensors.numpy import load

    return dict(load(data))
