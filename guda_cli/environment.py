"""Settings from the environment, checked."""

from __future__ import annotations

import os

from guda_cli import typed_number
from guda_cli.errors import UsageError
from guda_cli.plain_text import shorten

MOST_THREADS = 1024  # more are no faster on any machine, and a system may refuse them in the midst of work
MOST_IMAGES = 1 << 20  # of a batch
_SHOWN = 40  # characters of a value in a message


def whole(name: str, default: int | None = None, *, most: int) -> int | None:
    """The whole number from 1 to `most` that variable `name` holds, `default` where it is not set or empty.

    UsageError for anything else.
    """
    text = os.environ.get(name, "").strip()
    if not text:
        return default
    value = typed_number.whole(text)
    if value is None or not 1 <= value <= most:
        raise _refused(name, text, f"no whole number from 1 to {most}")
    return value


def threads() -> int | None:
    """GUDA_THREADS."""
    return whole("GUDA_THREADS", most=MOST_THREADS)


def jobs() -> int | None:
    """GUDA_JOBS."""
    return whole("GUDA_JOBS", most=MOST_THREADS)


def images_a_batch() -> int | None:
    """GUDA_BATCH_SIZE."""
    return whole("GUDA_BATCH_SIZE", most=MOST_IMAGES)


def seconds(name: str, default: float) -> float:
    """The seconds, 0 or more, that variable `name` holds; likewise."""
    text = os.environ.get(name, "").strip()
    if not text:
        return default
    value = typed_number.finite(text)
    if value is None or value < 0:
        raise _refused(name, text, "no number of seconds")
    return value


def _refused(name: str, text: str, why: str) -> UsageError:
    return UsageError(f"{name}={shorten(text, _SHOWN)!r} in the environment is {why}", fix=f"unset {name}")
