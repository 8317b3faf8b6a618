"""A file that is to be fetched, and how it is known to be the right one."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Wanted:
    """One file: its name here, its size in bytes and its SHA-256 (hex)."""

    name: str
    size: int
    sha256: str
    remote: str = ""
    """Where it lies below a mirror's address, if that is not its name."""
    unpacked: str = ""
    """SHA-256 of what a .gz holds: another packing of the same is as good."""
