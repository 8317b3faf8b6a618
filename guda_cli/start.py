"""The `guda` program: handed to the resident process of the store where there is one, else run here."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """What the script `guda` and `python -m guda_cli` call."""
    _fill()
    from guda_cli.view import client

    try:
        code = client.run(sys.argv[1:])
        if code is not None:
            sys.exit(code)
        from guda_cli import app

        app.main()
    except KeyboardInterrupt:  # while packages are loaded, or an answer is waited for
        print("interrupted", file=sys.stderr)
        sys.exit(130)


def _fill() -> None:
    """Open the standard streams that whoever calls has closed, to nowhere.

    A file of the store would get their numbers, and what is meant for a person would be written into it.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number, and those below are open
            os.set_inheritable(number, True)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w" if number else "r", encoding="utf-8", closefd=False))  # noqa: SIM115
