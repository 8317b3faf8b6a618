"""What the page's script searches, filters and sorts the images with; hidden where it does not run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from guda_cli.report.answers.content import QueryResult
from guda_cli.report.pieces.markup import esc

_FEWEST = 4
"""Images below which there is nothing to look for."""
_VERDICTS = {
    "out": "a group stands out",
    "none": "no group stands out",
    "unlike": "unlike the training data",
    "open": "nothing to compare with",
}
_AS = {"both": "stands out or is first", "out": "stands out", "first": "is first"}
_SORTS = {"score": "score", "z": "z", "se": "error"}


def verdict(query: QueryResult) -> str:
    """The key of an image's verdict."""
    if query.answer is None:
        return "open"
    if query.unlike:
        return "unlike"
    return "out" if query.answer else "none"


def controls(queries: Sequence[QueryResult]) -> str:
    """Search, filters, sort and count; nothing for a few images.

    The numbers are those of each image's first group.
    """
    if len(queries) < _FEWEST:
        return ""
    counts = Counter(verdict(query) for query in queries)
    verdicts = {"": "any"} | {k: f"{name} ({counts[k]:,})" for k, name in _VERDICTS.items() if counts[k]}
    firsts = [query.scores[0] for query in queries if query.scores]
    known = [name for name in _SORTS if any(getattr(first, name) is not None for first in firsts)]
    sorts = {"": "name"}
    for name in known:
        sorts |= {f"{name}-": f"highest {_SORTS[name]} first", f"{name}+": f"lowest {_SORTS[name]} first"}
    return (
        '<div class="controls" role="search" aria-label="Images" hidden>'
        '<label class="search">Search<input type="search" name="q" placeholder="name, prompt or group" '
        'autocomplete="off" spellcheck="false"></label>'
        f"{_choice('group', 'Group', {'': 'all groups'})}{_choice('as', 'that', _AS)}"
        f"{_choice('verdict', 'Answer', verdicts)}{_choice('sort', 'Sort by', sorts)}"
        '<button type="button">Clear</button><output aria-live="polite"></output></div>'
    )


def _choice(name: str, label: str, options: dict[str, str]) -> str:
    items = "".join(f'<option value="{esc(value)}">{esc(text)}</option>' for value, text in options.items())
    return f'<label>{esc(label)}<select name="{name}">{items}</select></label>'
