"""Settings from the environment, checked."""

from __future__ import annotations

import os

from guda_cli.errors import UsageError


def whole(name: str, default: int | None = None) -> int | None:
    """The whole number from 1 on that variable `name` holds, `default` where it is not set or empty.

    UsageError for anything else.
    """
    text = os.environ.get(name, "").strip()
    if not text:
        return default
    if not (text.isascii() and text.isdecimal() and int(text) > 0):
        raise UsageError(
            f"{name}={text!r} in the environment is no whole number from 1 on", fix=f"unset {name}"
        )
    return int(text)


def seconds(name: str, default: float) -> float:
    """The seconds, 0 or more, that variable `name` holds; likewise."""
    text = os.environ.get(name, "").strip()
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0.0 <= value < float("inf"):
        raise UsageError(f"{name}={text!r} in the environment is no number of seconds", fix=f"unset {name}")
    return value
