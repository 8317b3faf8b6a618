"""The `guda` program: handed to the resident process of the store where there is one, else run here."""

from __future__ import annotations

import sys


def main() -> None:
    """What the script `guda` and `python -m guda_cli` call."""
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
