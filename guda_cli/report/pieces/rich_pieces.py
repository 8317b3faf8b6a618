"""Small pieces of terminal output, as rich renderables; rich itself is imported when they are made."""

from __future__ import annotations

from typing import TYPE_CHECKING

from guda_cli.report.pieces.text import finite, printable

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table
    from rich.text import Text

_BLOCKS = " ▏▎▍▌▋▊▉█"


def literal(content: str, style: str = "") -> Text:
    """Literal text: neither markup nor control characters have an effect."""
    from rich.text import Text

    return Text(printable(content), style=style)


def titled(title: str, table: Table) -> list[RenderableType]:
    """An empty line, the title, the table."""
    return [literal(""), literal(title, "bold"), table]


def bar(value: float | None, reach: float, width: int) -> Text:
    """A horizontal bar of block characters, blue and shaded below zero."""
    known = finite(value)
    if known is None or reach <= 0:
        return literal("")
    eighths = round(min(abs(known) / reach, 1.0) * width * 8)
    if known < 0:
        return literal("▒" * round(eighths / 8), "blue")
    full, part = divmod(eighths, 8)
    return literal("█" * full + (_BLOCKS[part] if part else ""), "red")
