"""The frame of a report page: one self-contained HTML document with its own script, nothing loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from guda_cli.report.pieces.control_css import CONTROL_CSS
from guda_cli.report.pieces.css import style_sheet
from guda_cli.report.pieces.markup import Column, esc, scrolling, table
from guda_cli.report.pieces.script import policy, script
from guda_cli.report.pieces.text import flatten

ROWS = 20
"""Of a long table, how many rows show unasked."""
_LONGEST_WARNING = 400


def document(title: str, head: str, sections: Sequence[tuple[str, str, str]], *, css: str = "") -> str:
    """The page: ``head``, links, then the sections (id, heading, HTML); empty sections are left out."""
    shown = [section for section in sections if section[2]]
    links = "".join(f'<a href="#{key}">{esc(name)}</a>' for key, name, _ in shown)
    body = "".join(
        f'<section id="{key}"><h2>{esc(name)}</h2>{content}</section>' for key, name, content in shown
    )
    style = style_sheet() + CONTROL_CSS + css
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy(style)}">'
        '<meta name="generator" content="guda">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{esc(title)}</title><style>{style}</style></head>"
        f'<body><main>{head}<nav aria-label="Sections">{links}</nav>{body}</main>'
        f"<script>{script()}</script></body></html>\n"
    )


def facts_list(facts: Sequence[tuple[str, str]]) -> str:
    """Names and values side by side."""
    items = "".join(f"<div><dt>{esc(name)}</dt><dd>{esc(value)}</dd></div>" for name, value in facts)
    return f'<dl class="facts">{items}</dl>'


def warnings_note(warnings: Sequence[str]) -> str:
    """The warnings in a box, or nothing."""
    if not warnings:
        return ""
    items = "".join(f"<li>{behind(warning, _LONGEST_WARNING)}</li>" for warning in warnings)
    return f'<div class="note" role="note"><strong>Warnings</strong><ul>{items}</ul></div>'


def details(summary: str, content: str, *, opened: bool = False, css: str = "") -> str:
    """Content behind a line that opens it."""
    kind = f' class="{css}"' if css else ""
    return f"<details{kind}{' open' if opened else ''}><summary>{esc(summary)}</summary>{content}</details>"


def behind(text: str, longest: int) -> str:
    """The text, or where it is longer, all of it behind its first words."""
    if len(text) <= longest:
        return esc(text)
    return details(f"{text[: longest * 2 // 3].rsplit(' ', 1)[0]} …", f"<p>{esc(text)}</p>", css="told")


def folded_table(
    caption: str, columns: Sequence[Column], rows: Sequence[Sequence[str]], *, keep: int = 0, css: str = ""
) -> str:
    """A table to sort, its rows beyond the first `ROWS` in a fold; the first ``keep`` always show."""
    first = max(ROWS, keep)
    head, rest = rows[:first], rows[first:]
    shown = table(caption, columns, head, css=css, sort=True, keep=keep)
    if rest:
        shown += details(f"The other {len(rest):,}", table(f"{caption}: the others", columns, rest, css=css))
    return f'<div class="fold">{shown}</div>'


def pairs(values: Mapping[str, object], label: str) -> str:
    """Nested values as a table of dotted keys."""
    rows = [[esc(key), f"<code>{esc(value)}</code>"] for key, value in flatten(values)]
    return scrolling(table(label, [Column("What"), Column("Value")], rows, quiet=True), label)


def recipe(name: str, yaml: str) -> str:
    """The recipe's text behind its name."""
    return details(f"Recipe {name}", f"<pre><code>{esc_lines(yaml)}</code></pre>")


def esc_lines(text: str) -> str:
    """Escaped text that keeps its line breaks."""
    return "\n".join(esc(line.expandtabs(4)) for line in text.splitlines())
