"""One image in one line: for `guda score` over many images."""

from __future__ import annotations

from guda_cli.report.model import NO_GROUP, QueryResult
from guda_cli.report.text import finite, printable
from guda_cli.report.words import caption


def query_line(query: QueryResult, top: int) -> str:
    """`name: groups that stand out, starred, and the first `top` groups with score and error`."""
    parts = []
    for entry in query.scores[:top]:
        star = "*" if entry.stands_out else ""
        z = f", z {entry.z:.1f}" if finite(entry.z) is not None else ""
        error = f" ± {entry.se:.2g}" if entry.se is not None else ""
        parts.append(f"{printable(entry.group)}{star} {entry.score:+.4g}{error}{z}")
    answer = f"{NO_GROUP}; " if query.answer is not None and not query.answer else ""
    return f"{printable(caption(query))}: {answer}{'; '.join(parts)}"
