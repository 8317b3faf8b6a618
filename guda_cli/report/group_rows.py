"""What there is of every group of the training data, as a table for people, CSV and JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from guda_cli.jsonable import plain
from guda_cli.phrases import plural
from guda_cli.report.pieces.csv_cells import csv_cell, csv_line
from guda_cli.report.pieces.rich_pieces import literal
from guda_cli.report.pieces.text import UNKNOWN, Scale, printable, scale_for
from guda_cli.tables import Column, Row, fitted

if TYPE_CHECKING:
    from rich.console import RenderableType

SCHEMA = "guda.groups/1"


@dataclass(frozen=True)
class GroupRow:
    """One group.

    ``unlearned`` is the operator that its model was unlearned by, None without one; ``current`` says whether
    that was with the recipe's settings, ``check`` and ``why`` what its check found. ``retrained`` is the
    number of models trained without it. ``score`` is its mean over the scored images, with the standard
    error over them; of ``judged`` images it stands out in ``stands_out``. All None where nothing is known.
    """

    group: str
    images: int
    held_out: int = 0
    unlearned: str | None = None
    current: bool | None = None
    check: str | None = None
    why: str | None = None
    retrained: int = 0
    score: float | None = None
    se: float | None = None
    stands_out: int | None = None
    judged: int | None = None


_NUMBERS = frozenset({"score", "se"})
COLUMNS = tuple(GroupRow.__dataclass_fields__)
_CHECKS = ("failed", "doubtful", "passed", None)


def _downwards(value: float | None) -> float:
    return float("inf") if value is None else -value


SORTS: Mapping[str, Callable[[GroupRow], Any]] = {
    "size": lambda row: -row.images,
    "name": lambda row: row.group,
    "check": lambda row: _CHECKS.index(row.check) if row.check in _CHECKS else len(_CHECKS),
    "score": lambda row: _downwards(row.score),
    "stands-out": lambda row: _downwards(row.stands_out),
}
"""By what rows are put in order: the worst check, else the largest number, first; then by name."""


def ordered(rows: Sequence[GroupRow], by: str) -> list[GroupRow]:
    """``rows`` by one of `SORTS`."""
    return sorted(rows, key=lambda row: (SORTS[by](row), row.group))


def to_json(recipe: str, images: int, rows: Sequence[GroupRow]) -> dict[str, Any]:
    """The document; ``images`` are those of the data, each counted once."""
    found = plain(
        {"schema": SCHEMA, "recipe": recipe, "images": images, "groups": [asdict(row) for row in rows]}
    )
    assert isinstance(found, dict)
    return found


def to_csv(rows: Sequence[GroupRow]) -> str:
    """One line a group."""
    lines = [csv_line(COLUMNS)]
    for row in rows:
        values = asdict(row)
        lines.append(csv_line([csv_cell(values[name], number=name in _NUMBERS) for name in COLUMNS]))
    return "\n".join(lines)


def table(rows: Sequence[GroupRow], width: int) -> RenderableType:
    """One line a group in ``width`` columns: what does not fit is left out, names are cut in the middle."""
    scale = scale_for([row.score for row in rows], [row.se for row in rows])
    cells = [
        (column, text) for column, text in _columns(scale) if any(text(row)[0] != UNKNOWN for row in rows)
    ]
    heads = [Column("group", cut=True), *(column for column, _ in cells)]
    lines = [
        Row([literal(printable(row.group)), *(literal(*text(row)) for _, text in cells)]) for row in rows
    ]
    return fitted(heads, lines, width)


_STYLES = {"passed": "green", "doubtful": "yellow", "failed": "bold red"}


def _columns(scale: Scale) -> list[tuple[Column, Callable[[GroupRow], tuple[str, str]]]]:
    """Columns, and the text and style of a row's cell; where room is short the highest `drop` goes first."""

    def number(head: str, text: Callable[[GroupRow], str], drop: int) -> Any:
        return Column(head, right=True, drop=drop), lambda row: (text(row), "")

    def check(row: GroupRow) -> tuple[str, str]:
        said = "FAILED" if row.check == "failed" else row.check or UNKNOWN
        return said, _STYLES.get(row.check or "", "")

    return [
        number("images", lambda row: f"{row.images:,}", 0),
        number("held out", lambda row: f"{row.held_out:,}" if row.held_out else UNKNOWN, 5),
        (Column("unlearned", drop=3), lambda row: (_operator(row), "")),
        (Column("check"), check),
        number("retrained", lambda row: str(row.retrained) if row.retrained else UNKNOWN, 7),
        number(f"mean score {scale.label}".strip(), lambda row: scale.show(row.score, sign=True), 4),
        number("± s.e.", lambda row: scale.show(row.se), 6),
        number("stands out", lambda row: f"{row.stands_out} of {row.judged}" if row.judged else UNKNOWN, 1),
    ]


def _operator(row: GroupRow) -> str:
    if row.unlearned is None:
        return UNKNOWN
    return row.unlearned if row.current else f"({row.unlearned})"


def summary(images: int, rows: Sequence[GroupRow], scored: int) -> str:
    """All groups in a line; ``scored`` images have scores."""
    said = [f"{plural(len(rows), 'group', 'groups')}, {images:,} images"]
    held = sum(row.held_out for row in rows)
    said += [f"{held:,} held out"] if held else []
    made = [row for row in rows if row.unlearned and row.current]
    verdicts = [f"{n} {name}" for name in _CHECKS[:3] if (n := sum(row.check == name for row in made))]
    said.append(f"{len(made)} unlearned" + (f" ({', '.join(verdicts)})" if verdicts else ""))
    said.append(f"{sum(row.retrained > 0 for row in rows)} retrained")
    return ", ".join([*said, f"{plural(scored, 'image', 'images')} scored"])


OTHERS = "in brackets: unlearned with other settings than the recipe's; guda unlearn --all makes the others"
"""What brackets around an operator say."""
