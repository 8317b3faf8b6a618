"""Who stands where in a table of methods: the order of its rows, and ties with the best."""

from __future__ import annotations

from typing import NamedTuple

from guda_cli.report.agreement.content import (
    CEILING,
    IMPORTED,
    METHOD,
    RANDOM,
    AgreementRow,
    AgreementTable,
    Interval,
)
from guda_cli.report.agreement.figures import known

BEST, CLOSE, BEHIND, APART = "best", "not distinguishable from the best", "behind", ""


class Placed(NamedTuple):
    """A row of the table and where it stands: BEST, CLOSE, BEHIND, or APART for random and ceiling.

    ``rank`` is 1 for the method of the highest top-1, and None for rows that stand apart.
    """

    row: AgreementRow
    place: str
    rank: int | None = None


def placed(table: AgreementTable) -> list[Placed]:
    """Every row in order: methods by top-1, best first, then all else, random before the ceiling."""
    methods = [row for row in table.rows if row.kind in {METHOD, IMPORTED}]
    methods.sort(key=lambda row: (-_value(row, "top1"), -_value(row, "ndcg@3"), row.name))
    order = {RANDOM: 0, CEILING: 2}
    apart = sorted(
        (row for row in table.rows if row.kind not in {METHOD, IMPORTED}), key=lambda r: order.get(r.kind, 1)
    )
    first = known(methods[0].metrics.get("top1")) if methods else None
    out = [Placed(row, _place(rank, row, first), rank) for rank, row in enumerate(methods, 1)]
    return out + [Placed(row, APART) for row in apart]


def _place(rank: int, row: AgreementRow, first: Interval | None) -> str:
    mine = known(row.metrics.get("top1"))
    if first is None or mine is None:
        return BEHIND
    if rank == 1:
        return BEST
    return CLOSE if mine.high >= first.low and first.high >= mine.low else BEHIND


def _value(row: AgreementRow, metric: str) -> float:
    found = known(row.metrics.get(metric))
    return float("-inf") if found is None else found.value


def of_kind(table: AgreementTable, kind: str) -> AgreementRow | None:
    """The first row of that kind."""
    return next((row for row in table.rows if row.kind == kind), None)
