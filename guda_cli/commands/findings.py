"""What a check of `guda doctor` found."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Check:
    """One thing looked at. `state`: ok | warn | fail; `fix` is what to do when it is not ok."""

    name: str
    state: str
    detail: str
    fix: str = ""
