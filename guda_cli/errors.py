"""Errors a user can act on, and the exit code each one ends the program with."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class GudaError(Exception):
    """Something the user can put right.

    `message` says what went wrong, `why` the reason, `fix` the next command or edit. Printed without
    a traceback; `exit_code` ends the process.
    """

    exit_code = 1

    def __init__(self, message: str, *, why: str = "", fix: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.why = why
        self.fix = fix


class UsageError(GudaError):
    """A wrong option or argument."""

    exit_code = 2


class RecipeError(GudaError):
    """A recipe that does not parse or does not make sense."""

    exit_code = 3


class DataError(GudaError):
    """Training data or a query image that cannot be used."""

    exit_code = 3


class MissingError(GudaError):
    """An earlier step has not been run; `fix` is the command that runs it."""

    exit_code = 4


class CorruptError(GudaError):
    """A stored object is damaged and cannot be rebuilt by this command."""

    exit_code = 5


class BusyError(GudaError):
    """Another process holds the same work and the user asked not to wait."""

    exit_code = 6


class CheckError(GudaError):
    """A model did not pass its check, and the user asked for that to be an error."""

    exit_code = 7


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The entry of `known` closest in spelling to `word`, or None when nothing comes near."""
    known = list(known)
    lowered = {name.lower(): name for name in known}
    found = difflib.get_close_matches(word.lower(), lowered, n=1, cutoff=0.5)
    return lowered[found[0]] if found else None


def unknown(kind: str, word: str, known: Iterable[str]) -> str:
    """A sentence `unknown <kind> '<word>'; did you mean '<nearest>'?` (or the known names)."""
    known = list(known)
    guess = nearest(word, known)
    hint = f"did you mean '{guess}'?" if guess else "known: " + ", ".join(known[:12])
    return f"unknown {kind} '{word}'; {hint}"
