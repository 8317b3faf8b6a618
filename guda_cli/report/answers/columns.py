"""The columns of every ranking of groups: CSV, JSON, terminal and page each pick theirs from one list.

A column that follows from what a `Line` holds is added to `COLUMNS` and nowhere else; one that CSV or JSON
has is described in docs/table-formats.md and docs/schemas.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from guda_cli.report.answers.content import NO_GROUP, GroupScore, QueryResult
from guda_cli.report.answers.words import caption, score_name
from guda_cli.report.pieces.text import UNKNOWN, Scale, finite, printable, scale_for, z_text


class View(Enum):
    """Where a ranking is shown; each has its own choice of columns."""

    CSV = "a line of the CSV"
    JSON = "an entry of `scores` in a document"
    TABLE = "terminal: the table of one image"
    LIST = "terminal: the table of all images"
    NARROW = "terminal: the table of all images where there is little room"
    LINE = "terminal: a row for each image, as they come"
    CARD = "page: an image's card"


class Kind(Enum):
    """How a cell is set, for people."""

    TEXT = "to the left; folded or cut where it is long"
    NUMBER = "to the right; never broken"
    MARK = "to the left; never broken"


class Line(NamedTuple):
    """One group of one image's ranking, and how it was scored: all that a column is told.

    ``rank`` is 1 for the highest score. ``method`` and ``weighting`` are empty where no column needs them.
    """

    query: QueryResult
    rank: int
    entry: GroupScore
    method: str = ""
    weighting: str = ""


Text = Callable[[Line, Scale], str]
Value = Callable[[Line], object]
Head = Callable[[Scale, bool], str]


def _always(entries: Iterable[GroupScore]) -> bool:
    return True


@dataclass(frozen=True)
class ScoreColumn:
    """One column: ``name`` is for CSV and JSON, ``head`` for people.

    ``head`` may depend on the table's scale and on whether the scores are counterfactual. ``value`` is what
    the views in ``data`` (CSV, JSON) hold: a number of ``Kind.NUMBER``, text, a truth value or None.
    ``cells`` has the text of a cell for every other view that shows the column. For people it is shown only
    ``when`` the entries of their table have something to show. ``css`` is the class of its head on the page.
    """

    name: str
    head: str | Head = ""
    kind: Kind = Kind.NUMBER
    value: Value | None = None
    data: frozenset[View] = frozenset()
    cells: Mapping[View, Text] = field(default_factory=dict)
    when: Callable[[Iterable[GroupScore]], bool] = _always
    css: str = ""

    def heading(self, scale: Scale, counterfactual: bool) -> str:
        """The head in a table of that scale; it may end in a space where the scale says nothing."""
        return self.head if isinstance(self.head, str) else self.head(scale, counterfactual)

    def text(self, view: View, line: Line, scale: Scale) -> str:
        """One cell for people, neither cut nor escaped; ``view`` must be one that shows the column."""
        return self.cells[view](line, scale)

    def datum(self, line: Line) -> object:
        """One value for CSV or JSON."""
        return None if self.value is None else self.value(line)


def have_errors(entries: Iterable[GroupScore]) -> bool:
    """Does any of these scores have a Monte-Carlo error?"""
    return any(finite(entry.se) is not None for entry in entries)


def have_z(entries: Iterable[GroupScore]) -> bool:
    """Was any of these scores compared with a null?"""
    return any(entry.z is not None for entry in entries)


def _on(*views: View, text: Text) -> dict[View, Text]:
    return dict.fromkeys(views, text)


def _image(line: Line, scale: Scale) -> str:
    """The image's name stands beside the first of its groups only."""
    return caption(line.query) if line.rank == 1 else ""


def _group(line: Line, scale: Scale) -> str:
    return line.entry.group


def _said_group(line: Line, scale: Scale) -> str:
    return printable(line.entry.group) + ("*" if line.entry.stands_out else "")


def _score_head(scale: Scale, counterfactual: bool) -> str:
    return f"{score_name(counterfactual)} {scale.label}"


def _score(line: Line, scale: Scale) -> str:
    return scale.show(line.entry.score, sign=True)


def _score_and_error(line: Line, scale: Scale) -> str:
    return scale.pair(line.entry.score, line.entry.se)


def _error(line: Line, scale: Scale) -> str:
    return scale.show(line.entry.se)


def _interval(line: Line, scale: Scale) -> str:
    low, high = line.entry.low, line.entry.high
    if finite(low) is None and finite(high) is None:
        return UNKNOWN
    return f"{scale.show(low, sign=True)} … {scale.show(high, sign=True)}"


def _z(line: Line, scale: Scale) -> str:
    return z_text(line.entry.z)


def _mark(found: str, none: str) -> Text:
    """``found`` beside a group that stands out, ``none`` beside the first of an image where none does."""

    def text(line: Line, scale: Scale) -> str:
        if line.entry.stands_out:
            return found
        if line.rank == 1 and line.query.unlike:
            return "unlike"
        return none if line.rank == 1 and line.query.answer == () else ""

    return text


def _verdict(line: Line, scale: Scale) -> str:
    """Of an image, in two words."""
    query = line.query
    if query.answer is None:
        return UNKNOWN
    if query.unlike:
        return "unlike data"
    found = len(query.answer)
    return "no group" if not found else "stands out" if found == 1 else f"{found} stand out"


def _stands_out(line: Line) -> bool | None:
    return None if line.entry.stands_out is None else bool(line.entry.stands_out)


_CSV = frozenset({View.CSV})
_DATA = frozenset({View.CSV, View.JSON})
_LISTS = (View.LIST, View.NARROW)
_TABLES = (View.TABLE, *_LISTS)

# In the order of every view; the first that a card shows is the group's name, beside its bar.
COLUMNS: tuple[ScoreColumn, ...] = (
    ScoreColumn(
        "query",
        "image",
        Kind.TEXT,
        value=lambda line: line.query.name,
        data=_CSV,
        cells=_on(*_LISTS, text=_image) | _on(View.LINE, text=lambda line, scale: line.query.name),
    ),
    ScoreColumn("digest", kind=Kind.TEXT, value=lambda line: line.query.digest, data=_CSV),
    ScoreColumn("looks_like", kind=Kind.TEXT, value=lambda line: line.query.looks_like, data=_CSV),
    ScoreColumn(
        "rank",
        "rank",
        Kind.TEXT,
        value=lambda line: line.rank,
        data=_DATA,
        cells=_on(View.TABLE, text=lambda line, scale: f"{line.rank:>4}"),
    ),
    ScoreColumn(
        "group",
        "group",
        Kind.TEXT,
        value=lambda line: line.entry.group,
        data=_DATA,
        cells=_on(*_TABLES, View.CARD, text=_group) | _on(View.LINE, text=_said_group),
        css="c-group",
    ),
    ScoreColumn(
        "score",
        _score_head,
        value=lambda line: line.entry.score,
        data=_DATA,
        cells=_on(*_TABLES, View.LINE, text=_score) | _on(View.CARD, text=_score_and_error),
        css="c-value",
    ),
    ScoreColumn(
        "se",
        "± s.e.",
        value=lambda line: line.entry.se,
        data=_DATA,
        cells=_on(*_TABLES, View.LINE, text=_error),
        when=have_errors,
    ),
    ScoreColumn("low", value=lambda line: line.entry.low, data=_DATA),
    ScoreColumn("high", value=lambda line: line.entry.high, data=_DATA),
    ScoreColumn("interval", "95 % interval", cells=_on(View.TABLE, text=_interval), when=have_errors),
    ScoreColumn(
        "z",
        "z",
        value=lambda line: line.entry.z,
        data=_DATA,
        cells=_on(*_TABLES, View.CARD, View.LINE, text=_z),
        when=have_z,
        css="c-z",
    ),
    ScoreColumn("p", value=lambda line: line.entry.p, data=_DATA),
    ScoreColumn(
        "stands_out",
        kind=Kind.MARK,
        value=_stands_out,
        data=_DATA,
        cells={
            View.LIST: _mark("◀ stands out", NO_GROUP),
            View.NARROW: _mark("◀", "none"),
            View.LINE: _verdict,
        },
    ),
    ScoreColumn("weighting", kind=Kind.TEXT, value=lambda line: line.weighting, data=_CSV),
    ScoreColumn("method", kind=Kind.TEXT, value=lambda line: line.method, data=_CSV),
    ScoreColumn("draws", value=lambda line: line.entry.draws, data=_DATA),
    ScoreColumn("spread", value=lambda line: line.entry.spread, data=_DATA),
    ScoreColumn("retrained", value=lambda line: line.entry.retrained, data=_DATA),
    ScoreColumn("retrained_low", value=lambda line: line.entry.retrained_low, data=_DATA),
    ScoreColumn("retrained_high", value=lambda line: line.entry.retrained_high, data=_DATA),
)


def pick(view: View, entries: Iterable[GroupScore] | None = None) -> list[ScoreColumn]:
    """The columns of a view, in order; with ``entries`` only those that have something to show for them."""
    known = None if entries is None else list(entries)
    columns = [column for column in COLUMNS if view in column.data or view in column.cells]
    return [column for column in columns if known is None or column.when(known)]


def ranked(
    query: QueryResult, top: int | None = None, *, method: str = "", weighting: str = ""
) -> list[Line]:
    """The first ``top`` groups of an image, or all, as lines of its ranking."""
    entries = enumerate(query.scores[:top], 1)
    return [Line(query, rank, entry, method, weighting) for rank, entry in entries]


def scale_of(entries: Iterable[GroupScore]) -> Scale:
    """How the numbers of one table of groups are shown."""
    known = list(entries)
    return scale_for([entry.score for entry in known], [entry.se for entry in known])
