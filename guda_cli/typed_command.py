"""The command line as it was typed, and as an error suggests to change it."""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import ContextVar

from guda_cli.plain_text import joined
from guda_cli.plain_text import words as words_of

_LONGEST = 8  # words of a command that is repeated in an error
_typed: ContextVar[tuple[str, tuple[str, ...]] | None] = ContextVar("typed", default=None)


def remember(command: str, words: Sequence[str]) -> None:
    """Note what `command`, such as `guda score`, was given."""
    _typed.set((command, tuple(words)))


def suggested(fix: str) -> str:
    """The command as it was typed with the options that `fix` consists of; other fixes as they are.

    Options given before give way, of `--set` those of the same entry and the option that stands for it. A
    long command is not repeated.
    """
    typed = _typed.get()
    if typed is None or not fix.startswith("--"):
        return fix
    command, words = typed
    left = list(words)
    for option, value in _options(words_of(fix)):
        left = _without(left, option, value)
    if len(left) > _LONGEST:
        return fix
    return f"{command} {joined(left)} {fix}" if left else f"{command} {fix}"


def _options(words: Sequence[str]) -> list[tuple[str, str | None]]:
    """Options and their values."""
    found: list[tuple[str, str | None]] = []
    for word in words:
        if word.startswith("--"):
            found.append((word, None))
        elif found and found[-1][1] is None:
            found[-1] = found[-1][0], word
    return found


def _without(words: Sequence[str], option: str, value: str | None) -> list[str]:
    out, skip = [], False
    for index, word in enumerate(words):
        if skip:
            skip = False
            continue
        name, equals, given = word.partition("=")
        if option == "--set" and name == f"--{_entry(value or '').rpartition('.')[2].replace('_', '-')}":
            skip = not equals  # an option that stands for this entry would win over it
            continue
        if name == option:
            joined = bool(equals)
            old = (
                given if joined else words[index + 1] if value is not None and index + 1 < len(words) else ""
            )
            if option != "--set" or _entry(old) == _entry(value or ""):
                skip = value is not None and not joined
                continue
        out.append(word)
    return out


def _entry(setting: str) -> str:
    return setting.partition("=")[0].strip()
