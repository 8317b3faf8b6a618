"""An image a row, printed as they come: what is known beforehand settles how wide the columns are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from guda_cli.report.answers import columns, words
from guda_cli.report.answers.columns import Kind, Line, ScoreColumn, View
from guda_cli.report.answers.content import QueryResult
from guda_cli.report.pieces.rich_pieces import literal
from guda_cli.report.pieces.text import Scale, printable, shorten
from guda_cli.tables import Column, layout

if TYPE_CHECKING:
    from rich.text import Text

_ORDER = ("query", "stands_out", "group", "score", "se", "z")
_DROP = {"se": 1, "z": 2}  # where there is little room
_VERDICTS = ("stands out", "unlike data", "9 stand out")
_STYLES = {"stands": "green", "stand": "green", "unlike": "yellow", "no": "dim"}
_NARROW = {"score": "score"}
_LEAST = 16  # columns of what stands behind the first group


@dataclass
class ImageRows:
    """The rows of one table of scored images.

    ``names`` and ``groups`` are all that may come; ``first`` are the results of the first images, whose
    scores say how many decimals all are shown with. ``top`` groups an image, as far as there is room.
    """

    names: Sequence[str]
    groups: Sequence[str]
    first: Sequence[QueryResult]
    width: int
    top: int
    counterfactual: bool = True

    @cached_property
    def judged(self) -> bool:
        """Whether verdicts are given."""
        return any(query.answer is not None for query in self.first)

    @cached_property
    def _scale(self) -> Scale:
        return columns.scale_of(
            line.entry for query in self.first for line in columns.ranked(query, self.top)
        )

    @cached_property
    def _columns(self) -> list[ScoreColumn]:
        entries = [entry for query in self.first for entry in query.scores]
        known = {c.name: c for c in columns.pick(View.LINE, entries)}
        if not self.judged:
            known.pop("stands_out", None)
        first = [known.pop(name) for name in _ORDER if name in known]
        return [*first, *known.values()]

    @cached_property
    def _layout(self) -> tuple[list[ScoreColumn], list[int], int]:
        """The columns shown, their widths, and the space between them."""
        cells = [self._cells(columns.ranked(query, 1)[0]) for query in self.first if query.scores]
        longest = {
            "query": [printable(name) for name in self.names],
            "group": [f"{printable(name)}*" for name in self.groups],
            "stands_out": list(_VERDICTS),
        }
        made = []
        for at, column in enumerate(self._columns):
            named = column.name in ("query", "group")
            texts = [*longest.get(column.name, ()), *(row[at] for row in cells)]
            widest = max(texts, key=len, default="")
            cells.append([widest if i == at else "" for i in range(len(self._columns))])
            made.append(
                Column(
                    self._head(column),
                    column.kind is Kind.NUMBER,
                    cut=named,
                    drop=_DROP.get(column.name, 0),
                    narrow=_NARROW.get(column.name, ""),
                )
            )
        kept, sizes, gap = layout(made, cells, self.width + 2)  # these rows have no edges
        return [self._columns[at] for at in kept], sizes, gap

    @cached_property
    def _behind(self) -> dict[str, int]:
        """Columns left for the next groups, and for what the images were scored with."""
        _, sizes, gap = self._layout
        left = self.width - sum(sizes) - gap * len(sizes)
        said = {
            "then": [self._next(query, self.width) for query in self.first],
            "scored with": [words.told(query) for query in self.first],
        }
        longest = {name: max(map(len, texts), default=0) for name, texts in said.items() if any(texts)}
        if len(longest) == 2 and left < 2 * _LEAST + gap:
            del longest["scored with"]
        each = (left - gap * (len(longest) - 1)) // len(longest) if longest else 0
        return {name: max(min(each, size), len(name)) for name, size in longest.items() if each >= _LEAST}

    def heads(self) -> Iterator[Text]:
        """The heads of the columns, and the line below them."""
        shown, sizes, gap = self._layout
        heads = [self._head(column) for column in shown]
        heads = [
            _NARROW.get(column.name, head) if len(head) > size else head
            for head, column, size in zip(heads, shown, sizes, strict=True)
        ]
        yield literal(self._joined(heads + list(self._behind)), "bold")
        widths = [*sizes, *self._behind.values()]
        yield literal("─" * (sum(widths) + gap * (len(widths) - 1)), "dim")

    def row(self, query: QueryResult) -> Text:
        """One image."""
        if not query.scores:
            return literal(f"{query.name}: {words.query_answer(query)}")
        line = columns.ranked(query, 1)[0]
        shown, sizes, gap = self._layout
        cells = [column.text(View.LINE, line, self._scale) for column in shown]
        behind = {"then": self._next(query, self._behind.get("then", 0)), "scored with": words.told(query)}
        row = literal("")
        for text, column, size in zip(cells, shown, sizes, strict=True):
            if column.name == "group" and query.race is not None and not query.race.decided:
                text += words.OPEN_MARK
            cut = shorten(printable(text), size) if column.kind is not Kind.NUMBER else text
            padded = cut.rjust(size) if column.kind is Kind.NUMBER else cut.ljust(size)
            row.append(" " * gap if row else "").append(padded, self._style(column, line, text))
        for name, room in self._behind.items():
            row.append(" " * gap).append(shorten(printable(behind[name]), room).ljust(room), "dim")
        row.rstrip()
        row.no_wrap, row.overflow = True, "ignore"
        return row

    def _cells(self, line: Line) -> list[str]:
        return [column.text(View.LINE, line, self._scale) for column in self._columns]

    def _head(self, column: ScoreColumn) -> str:
        said = {"stands_out": "verdict"}.get(column.name)
        return said or column.heading(self._scale, self.counterfactual).strip()

    def _joined(self, texts: Sequence[str]) -> str:
        shown, sizes, gap = self._layout
        rights = [column.kind is Kind.NUMBER for column in shown] + [False] * len(self._behind)
        widths = [*sizes, *self._behind.values()]
        parts = [t.rjust(w) if r else t.ljust(w) for t, w, r in zip(texts, widths, rights, strict=True)]
        return (" " * gap).join(parts).rstrip()

    def _style(self, column: ScoreColumn, line: Line, text: str) -> str:
        if column.name == "stands_out":
            return _STYLES.get(text.split()[0], _STYLES["stands"] if text[:1].isdigit() else "")
        return "bold" if column.name == "group" and line.entry.stands_out else ""

    def _next(self, query: QueryResult, room: int) -> str:
        """As many of the next groups as there is room for, each with its score."""
        said = ""
        for line in columns.ranked(query, self.top)[1:]:
            star = "*" if line.entry.stands_out else ""
            one = f"{printable(line.entry.group)}{star} {self._scale.show(line.entry.score, sign=True)}"
            longer = f"{said}, {one}" if said else one
            if len(longer) > room:
                return said
            said = longer
        return said
