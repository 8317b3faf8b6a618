"""The frame of a report page: one self-contained HTML document, no script, nothing loaded from anywhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from guda_cli.report.pieces.css import style_sheet
from guda_cli.report.pieces.markup import Column, esc, scrolling, table
from guda_cli.report.pieces.text import flatten

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def document(title: str, head: str, sections: Sequence[tuple[str, str, str]], *, css: str = "") -> str:
    """The page: ``head``, links, then the sections (id, heading, HTML); empty sections are left out."""
    shown = [section for section in sections if section[2]]
    links = "".join(f'<a href="#{key}">{esc(name)}</a>' for key, name, _ in shown)
    body = "".join(
        f'<section id="{key}"><h2>{esc(name)}</h2>{content}</section>' for key, name, content in shown
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="generator" content="guda">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{esc(title)}</title><style>{style_sheet()}{css}</style></head>"
        f'<body><main>{head}<nav aria-label="Sections">{links}</nav>{body}</main></body></html>\n'
    )


def facts_list(facts: Sequence[tuple[str, str]]) -> str:
    """Names and values side by side."""
    items = "".join(f"<div><dt>{esc(name)}</dt><dd>{esc(value)}</dd></div>" for name, value in facts)
    return f'<dl class="facts">{items}</dl>'


def warnings_note(warnings: Sequence[str]) -> str:
    """The warnings in a box, or nothing."""
    if not warnings:
        return ""
    items = "".join(f"<li>{esc(warning)}</li>" for warning in warnings)
    return f'<div class="note" role="note"><strong>Warnings</strong><ul>{items}</ul></div>'


def details(summary: str, content: str, *, opened: bool = False) -> str:
    """Content behind a line that opens it."""
    return f"<details{' open' if opened else ''}><summary>{esc(summary)}</summary>{content}</details>"


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
