"""The same bits twice on the same machine: strict where torch can, told where it cannot."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

_TOLERANT, _STRICT = 1, 2
"""`torch.get_deterministic_debug_mode`."""
_LACKING = "does not have a deterministic implementation"


@contextmanager
def strict() -> Iterator[None]:
    """Operations that could end in other bits raise inside, where outside they would only warn.

    On a GPU attention chooses a backward that is deterministic only so. Without effect where `compute.setup`
    has not run.
    """
    before = torch.get_deterministic_debug_mode()
    if before == _TOLERANT:
        torch.set_deterministic_debug_mode(_STRICT)
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(before)


def give_up(err: BaseException) -> bool:
    """Be tolerant from now on, where `err` says that an operation has no deterministic form; else False."""
    if _LACKING not in str(err) or torch.get_deterministic_debug_mode() != _STRICT:
        return False
    torch.set_deterministic_debug_mode(_TOLERANT)
    return True
