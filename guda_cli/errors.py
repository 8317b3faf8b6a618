"""Errors a user can act on, and the exit code each one ends the program with."""

from __future__ import annotations

import difflib
import re
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
    """The entry of `known` closest in spelling to `word`, or None when nothing comes near.

    Of several alike, that with the same numbers (`artist-7`: `artist-007`), then that which begins alike.
    """
    if len(word) > _LONGEST:
        return None
    lowered = {name.lower(): name for name in known}
    typed = word.lower()
    matcher = difflib.SequenceMatcher()
    matcher.set_seq2(typed)

    def likeness(name: str) -> float:
        matcher.set_seq1(name)
        likely = matcher.real_quick_ratio() >= _NEAR and matcher.quick_ratio() >= _NEAR
        return matcher.ratio() if likely else 0.0

    def rank(name: str) -> tuple[bool, float, int]:
        same = _numbers(name) == _numbers(typed) and _numbers(typed) != []
        return same, alike[name], _alike_from_the_start(name, typed)

    alike = {name: found for name in lowered if (found := likeness(name)) >= _NEAR}
    close = [name for name, found in alike.items() if found >= max(alike.values()) - _CLOSE]
    return lowered[max(close, key=rank)] if close else None


_LONGEST = 500  # characters of a word that may be misspelt
_NEAR, _CLOSE = 0.5, 0.1  # of spellings' likeness: what is a guess at all, and what is as good as the best


def _alike_from_the_start(one: str, other: str) -> int:
    return next(
        (i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), len(min(one, other, key=len))
    )


def _numbers(name: str) -> list[str]:
    return [digits.lstrip("0") for digits in re.findall(r"[0-9]+", name)]


def unknown(kind: str, word: str, known: Iterable[str], where: str = "") -> str:
    """A sentence `unknown <kind> '<word>'<where>; did you mean '<nearest>'?` (or the known names)."""
    known = list(known)
    guess = nearest(word, known)
    more = f" and {len(known) - _LISTED:,} more" if len(known) > _LISTED else ""
    hint = f"did you mean '{guess}'?" if guess else f"known: {', '.join(known[:_LISTED])}{more}"
    return f"unknown {kind} '{word}'{where}; {hint}"


_LISTED = 12
