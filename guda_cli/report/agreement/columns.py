"""The columns of every table of methods: CSV, JSON, LaTeX, terminal and page each pick theirs from one list.

A column that follows from a row is added to `COLUMNS` and nowhere else; one that CSV or JSON has is described
in docs/table-formats.md and docs/schemas.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import ClassVar, NamedTuple

from guda_cli.report.agreement.content import AgreementReport, AgreementRow, AgreementTable, Interval
from guda_cli.report.agreement.figures import known, speedup_text, time_text, value_text, work_text
from guda_cli.report.agreement.standing import APART, CLOSE, Placed, placed
from guda_cli.report.pieces.text import finite


class View(Enum):
    """Where methods are shown; each has its own choice of columns."""

    CSV = "a line of the CSV"
    JSON = "an entry of `rows`; metrics also of `bands` and `steps`"
    LATEX = "a row of a tabular"
    PAGE = "page: the table of one weighting; metrics also of bands and steps"
    TABLE = "terminal: the table of one weighting"
    COSTS = "terminal: the table of costs"
    BRIEF = "terminal: the tables of bands and steps; metrics only"


class Shown(NamedTuple):
    """A column for people: its head, the text of a cell, and on the page what stands small below that."""

    head: str
    text: Callable[[Placed], str]
    below: Callable[[Placed], str] | None = None


def _always(rows: Sequence[AgreementRow]) -> bool:
    return True


@dataclass(frozen=True)
class RowColumn:
    """A column that is no metric.

    ``value`` is what the views in ``data`` (CSV, JSON) hold: a ``number``, text, a mapping or None. ``shown``
    has every other view that shows the column, in the terminal and on paper only ``when`` the rows of the
    table have something to show. A ``number`` stands to the right.
    """

    name: str
    value: Callable[[AgreementTable, Placed], object] | None = None
    data: frozenset[View] = frozenset()
    shown: Mapping[View, Shown] = field(default_factory=dict)
    number: bool = True
    when: Callable[[Sequence[AgreementRow]], bool] = _always

    def head(self, view: View) -> str:
        """The head for people; ``view`` must be one that shows the column."""
        return self.shown[view].head

    def text(self, view: View, one: Placed) -> str:
        """One cell for people, neither cut nor escaped."""
        return self.shown[view].text(one)

    def datum(self, table: AgreementTable, one: Placed) -> object:
        """One value for CSV or JSON."""
        return None if self.value is None else self.value(table, one)


@dataclass(frozen=True)
class MetricColumn:
    """A measure of agreement, of a row, a band or a step: a mean with its interval.

    ``read`` gives it from the metrics that there are; without it, it is the one of this ``name``. ``most`` is
    the largest value that it can have in a report where that is not 1. ``short`` is the head in a terminal
    that is not wide, in as many lines as it has. One that is ``seldom`` there is shown to people only where
    some row has it.
    """

    number: ClassVar[bool] = True

    name: str
    title: str
    views: frozenset[View]
    read: Callable[[Mapping[str, Interval]], Interval | None] | None = None
    most: Callable[[AgreementReport], float] | None = None
    short: str = ""
    seldom: bool = False

    def of(self, metrics: Mapping[str, Interval]) -> Interval | None:
        """The metric's mean and interval; None if they are not known."""
        return self.read(metrics) if self.read else metrics.get(self.name)


def costs(row: AgreementRow) -> tuple[float | None, ...]:
    """Preparation, query and speed-up, each in forward-equivalents and seconds."""
    return (
        *(row.prepare_forwards, row.prepare_seconds, row.query_forwards, row.query_seconds),
        *(row.speedup_forwards, row.speedup_seconds),
    )


def _whole(forwards: float | None) -> int | None:
    found = finite(forwards)
    return None if found is None else round(found)


def has_costs(rows: Sequence[AgreementRow]) -> bool:
    """Does any row say what it cost?"""
    return any(finite(value) is not None for row in rows for value in costs(row))


def _standing(table: AgreementTable, one: Placed) -> str | None:
    if one.place == APART:
        return None
    return "close" if one.place == CLOSE else one.place


def _in_time(one: Placed) -> str:
    factor = one.row.speedup_seconds
    return f"{speedup_text(factor)} in time" if finite(factor) is not None else ""


def _name(head: str) -> Shown:
    return Shown(head, lambda one: one.row.name)


def _priced(head: str, text: Callable[[Placed], str], below: Callable[[Placed], str]) -> dict[View, Shown]:
    """Page and LaTeX have one column a cost: work, and on the page time below it."""
    return {View.LATEX: Shown(head, text), View.PAGE: Shown(head, text, below)}


def _prepare_work(one: Placed) -> str:
    return work_text(one.row.prepare_forwards)


def _prepare_time(one: Placed) -> str:
    return time_text(one.row.prepare_seconds)


def _query_work(one: Placed) -> str:
    return work_text(one.row.query_forwards)


def _query_time(one: Placed) -> str:
    return time_text(one.row.query_seconds)


def _speedup(one: Placed) -> str:
    return speedup_text(one.row.speedup_forwards)


_CSV = frozenset({View.CSV})
_DATA = frozenset({View.CSV, View.JSON})
_TABLES = _DATA | {View.LATEX, View.PAGE, View.TABLE}
_BRIEF = _TABLES | {View.BRIEF}

# In the order of every view. The first that people see is the method's name, which a view also marks by its
# standing.
COLUMNS: tuple[RowColumn | MetricColumn, ...] = (
    RowColumn("weighting", lambda table, one: table.weighting, _CSV, number=False),
    RowColumn("unit", lambda table, one: table.unit, _CSV, number=False),
    RowColumn("rank", lambda table, one: one.rank, _CSV, number=False),
    RowColumn(
        "method",
        lambda table, one: one.row.name,
        _DATA,
        dict.fromkeys((View.LATEX, View.PAGE), _name("Method"))
        | dict.fromkeys((View.TABLE, View.COSTS), _name("method")),
        number=False,
    ),
    RowColumn("kind", lambda table, one: one.row.kind, _DATA, number=False),
    RowColumn("standing", _standing, _DATA, number=False),
    MetricColumn("top1", "top-1", _BRIEF),
    MetricColumn("mrr", "MRR", _TABLES),
    MetricColumn("ndcg@3", "NDCG@3", _BRIEF, short="NDCG\n@3"),
    MetricColumn("ndcg@5", "NDCG@5", _TABLES, short="NDCG\n@5"),
    MetricColumn("spearman", "Spearman", _BRIEF, short="Spear-\nman"),
    MetricColumn("kendall", "Kendall", _TABLES, short="Ken-\ndall"),
    MetricColumn("rbo", "RBO", _TABLES, most=lambda report: report.rbo_max),
    MetricColumn("wpra", "WPRA", _TABLES),
    MetricColumn("corr", "corr", _TABLES),
    MetricColumn("corr:true", "true corr", _TABLES, short="true\ncorr", seldom=True),
    MetricColumn("lds", "LDS", _TABLES, seldom=True),
    MetricColumn("ndcg@3:linear", "NDCG@3, linear gain", _DATA),
    MetricColumn("ndcg@5:linear", "NDCG@5, linear gain", _DATA),
    RowColumn(
        "prepare_forwards",
        lambda table, one: _whole(one.row.prepare_forwards),
        _DATA,
        _priced("Preparation", _prepare_work, _prepare_time)
        | {View.COSTS: Shown("prepare\nforwards", _prepare_work)},
        when=has_costs,
    ),
    RowColumn(
        "prepare_seconds",
        lambda table, one: one.row.prepare_seconds,
        _DATA,
        {View.COSTS: Shown("prepare\ntime", _prepare_time)},
        when=has_costs,
    ),
    RowColumn(
        "query_forwards",
        lambda table, one: _whole(one.row.query_forwards),
        _DATA,
        _priced("A query", _query_work, _query_time) | {View.COSTS: Shown("a query\nforwards", _query_work)},
        when=has_costs,
    ),
    RowColumn(
        "query_seconds",
        lambda table, one: one.row.query_seconds,
        _DATA,
        {View.COSTS: Shown("a query\ntime", _query_time)},
        when=has_costs,
    ),
    RowColumn(
        "speedup_forwards",
        lambda table, one: one.row.speedup_forwards,
        _DATA,
        _priced("Speed-up", _speedup, _in_time) | {View.COSTS: Shown("speed-up\nforwards", _speedup)},
        when=has_costs,
    ),
    RowColumn(
        "speedup_seconds",
        lambda table, one: one.row.speedup_seconds,
        _DATA,
        {View.COSTS: Shown("speed-up\ntime", lambda one: speedup_text(one.row.speedup_seconds))},
        when=has_costs,
    ),
    RowColumn("reliability", lambda table, one: table.reliability, _CSV),
    RowColumn("reliability_mean", lambda table, one: table.reliability_mean, _CSV),
    RowColumn("settings", lambda table, one: one.row.settings, _DATA, number=False),
    RowColumn("note", lambda table, one: one.row.note, _DATA, number=False),
)


OF_THE_BENCH = ("corr", "corr:true", "lds")
"""Metrics that no query's two rankings give: of all queries together, or of further models."""


def pick(view: View, rows: Sequence[AgreementRow] | None = None) -> list[RowColumn | MetricColumn]:
    """The columns of a view, in order; with ``rows`` only those that have something to show for them."""
    return [column for column in COLUMNS if _has(column, view, rows)]


def _has(column: RowColumn | MetricColumn, view: View, rows: Sequence[AgreementRow] | None) -> bool:
    if isinstance(column, MetricColumn):
        empty = column.seldom and rows is not None and not any(column.of(row.metrics) for row in rows)
        return view in column.views and not empty
    return (view in column.data or view in column.shown) and (rows is None or column.when(rows))


def metrics(view: View) -> list[MetricColumn]:
    """The metrics of a view, in order."""
    return [column for column in COLUMNS if isinstance(column, MetricColumn) and view in column.views]


def title_of(metric: str) -> str:
    """A metric's name for people; KeyError for one that no column has."""
    return {column.name: column.title for column in metrics(View.CSV)}[metric]


def highest(table: AgreementTable, metric: MetricColumn) -> str:
    """The highest value of a metric among the methods, random and ceiling left out, as it is shown."""
    found = [known(metric.of(one.row.metrics)) for one in placed(table) if one.place != APART]
    value = max((one.value for one in found if one is not None), default=None)
    return "" if value is None else value_text(Interval(value, value, value))
