"""What can go wrong in a store; every error says what, why and what to do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class StoreError(Exception):
    """Base of all errors of this package.

    `message` says what went wrong, `why` the reason, `fix` what the user can do about it.
    """

    def __init__(self, message: str, *, why: str = "", fix: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.why = why
        self.fix = fix


class StoreMissing(StoreError):  # noqa: N818
    """There is no store at the given folder and none was to be made."""


class StoreFormatError(StoreError):
    """The store was written by another version of the format."""


class StoreReadOnly(StoreError):  # noqa: N818
    """A write to a store that cannot be written."""


class StoreFull(StoreError):  # noqa: N818
    """The disk or the quota is exhausted; nothing half-written was left behind."""


class CorruptBlob(StoreError):  # noqa: N818
    """The bytes of a blob do not have the digest that names it."""

    def __init__(self, digest: str, *, why: str, fix: str) -> None:
        super().__init__(f"blob {digest[:12]} is corrupt", why=why, fix=fix)
        self.digest = digest


class MissingBlob(StoreError):  # noqa: N818
    """A blob that is not in the store."""

    def __init__(self, digest: str) -> None:
        super().__init__(
            f"blob {digest[:12]} is not in the store",
            why="it was never stored, was garbage-collected, or was quarantined as corrupt",
            fix="run the step that makes it again",
        )
        self.digest = digest


class LeaseBusy(StoreError):  # noqa: N818
    """Another live process holds the lease; `holder` describes it."""

    def __init__(self, key: str, holder: Mapping[str, Any]) -> None:
        self.holder = dict(holder)
        who = f"process {self.holder.get('pid', '?')} on {self.holder.get('host', '?')}"
        super().__init__(
            f"{key[:12]} is being worked on by {who}",
            why=f"it holds the lease since {self.holder.get('started', '?')}",
            fix="wait for it to finish, or stop that process",
        )
