"""The page's own script, read from the files beside this one; the policy that lets nothing else run."""

from __future__ import annotations

import base64
import functools
import hashlib
from importlib import resources

FILES = ("images.js", "tables.js", "enlarge.js")


@functools.cache
def script() -> str:
    """The script of every page; each file of it does nothing where the page lacks what it is for."""
    folder = resources.files(__package__)
    return "".join((folder / name).read_text("utf-8") for name in FILES)


def policy(style: str) -> str:
    """The policy of a page whose style element holds ``style``: nothing else acts, nothing is loaded."""
    return "; ".join(
        (
            "default-src 'none'",
            "img-src data:",
            f"style-src {_hash(style)}",
            f"script-src {_hash(script())}",
            "base-uri 'none'",
            "form-action 'none'",
            "require-trusted-types-for 'script'",
        )
    )


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
