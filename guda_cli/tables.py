"""Tables for people, fit for a width: names and numbers stay whole, long tables are folded."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

from guda_cli.phrases import short_number
from guda_cli.plain_text import lines, printable, shorten

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

T = TypeVar("T")
MOST = 20  # rows of a folded table
MOST_BAD = 50  # and of those that are shown because something is wrong with them
WORDY = 24  # columns that wrapped text has at least
_SHORTEST = 8  # of a name that is cut
GAPS = (3, 2)  # spaces between columns: wide where all fits so


@dataclass(frozen=True)
class Column:
    """One column: its head, and what becomes of it where there is little room.

    Cells stay whole unless they `wrap` (between words) or are names, which are `cut` in the middle when all
    else is done. Columns of the highest `drop` are left out first, those of 0 never. `narrow` is a head of
    several lines for little room.
    """

    head: str
    right: bool = False
    wrap: bool = False
    cut: bool = False
    drop: int = 0
    narrow: str = ""


@dataclass(frozen=True)
class Row:
    """Cells, one a column; their style; whether a line of space follows."""

    cells: Sequence[Text | str]
    style: str = ""
    end: bool = False


def table(
    columns: Sequence[str | Column],
    rows: Iterable[Sequence[object]],
    width: int,
    *,
    title: str | None = None,
    caption: str | None = None,
    right: Collection[str] = (),
) -> Table:
    """A table of values. Columns of numbers, and those named in `right`, are aligned to the right.

    Of columns that are given by their heads alone the first holds names, others that hold no numbers text
    that may be wrapped.
    """
    values = [list(row) for row in rows]
    made = []
    for i, column in enumerate(columns):
        cells = [row[i] for row in values if row[i] is not None]
        numeric = bool(cells) and all(_is_number(cell) for cell in cells)
        if isinstance(column, str):
            numeric = numeric or column in right
            made.append(Column(column, right=numeric, wrap=i > 0 and not numeric, cut=i == 0))
        else:
            made.append(replace(column, right=column.right or numeric))
    return fitted(made, [Row([_cell(value) for value in row]) for row in values], width, title, caption)


def fitted(
    columns: Sequence[Column],
    rows: Sequence[Row],
    width: int,
    title: str | None = None,
    caption: str | None = None,
    gaps: Sequence[int] = GAPS,
) -> Table:
    """The same of cells that are text already; `gaps` as in `layout`."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    plain = [[_plain(cell) for cell in row.cells] for row in rows]
    kept, widths, gap = layout(columns, plain, width, gaps)
    made = Table(box=box.SIMPLE_HEAD, title_justify="left", caption_justify="left", pad_edge=False)
    made.padding = (0, int(gap > 1), 0, int(gap > 2))
    made.title = Text(printable(title), style="bold") if title else None
    made.caption = Text(lines(caption), style="dim") if caption else None
    for at, size in zip(kept, widths, strict=True):
        column = columns[at]
        head = column.narrow if column.narrow and _cells(column.head) > size else column.head
        made.add_column(
            Text(head), justify="right" if column.right else "left", no_wrap=not column.wrap,
            overflow="fold", width=size,
        )  # fmt: skip
    for row in rows:
        shown = [_shown(row.cells[at], columns[at], size) for at, size in zip(kept, widths, strict=True)]
        made.add_row(*shown, style=row.style or None, end_section=row.end)
    return made


def layout(
    columns: Sequence[Column], cells: Sequence[Sequence[str]], width: int, gaps: Sequence[int] = GAPS
) -> tuple[list[int], list[int], int]:
    """Which columns are shown, how wide each is, and the spaces between them: one of `gaps`, from 1 to 3."""
    natural = [
        max([_head_size(c, c.head), *(_longest_line(row[i]) for row in cells)]) for i, c in enumerate(columns)
    ]
    kept = list(range(len(columns)))
    for gap in gaps:
        if _total(natural, gap) <= width:
            return kept, natural, gap
    least = [_least(column, [row[i] for row in cells], natural[i]) for i, column in enumerate(columns)]
    while _total([least[i] for i in kept], gap) > width:
        losable = [i for i in kept if columns[i].drop]
        if not losable:
            break
        kept.remove(max(losable, key=lambda i: (columns[i].drop, i)))
    sizes = {i: least[i] for i in kept}
    _cut_names(sizes, columns, width - _total(list(sizes.values()), gap))
    _widen(sizes, natural, columns, width - _total(list(sizes.values()), gap))
    return kept, [sizes[i] for i in kept], gap


def _cut_names(sizes: dict[int, int], columns: Sequence[Column], spare: int) -> None:
    """Make names as short as they must be where there is less than no space to spare, the longest first."""
    while spare < 0:
        long = [i for i in sizes if columns[i].cut and sizes[i] > _SHORTEST]
        if not long:
            return
        sizes[max(long, key=lambda i: sizes[i])] -= 1
        spare += 1


def _widen(sizes: dict[int, int], natural: Sequence[int], columns: Sequence[Column], spare: int) -> None:
    """Give what is to spare to text that would be wrapped, then to heads."""
    while spare > 0:
        small = [i for i in sizes if sizes[i] < natural[i]]
        if not small:
            return
        wrapped = [i for i in small if columns[i].wrap] or small
        sizes[min(wrapped, key=lambda i: sizes[i])] += 1
        spare -= 1


def _total(sizes: Sequence[int], gap: int) -> int:
    return sum(sizes) + gap * max(len(sizes) - 1, 0) + 2


def _least(column: Column, cells: Sequence[str], natural: int) -> int:
    head = _head_size(column, column.narrow or column.head)
    if not column.wrap:
        return max([head, *map(_longest_line, cells)])
    words = max([_cells(word) for cell in cells for word in cell.split()], default=0)
    return max(min(natural, max(WORDY, min(words, 2 * WORDY))), head)


def _head_size(column: Column, head: str) -> int:
    return max(_cells(part) for part in head.split("\n"))


def _longest_line(text: str) -> int:
    return max((_cells(part) for part in text.split("\n")), default=0)


def _cells(text: str) -> int:
    from rich.cells import cell_len

    return cell_len(text)


def _plain(cell: Text | str) -> str:
    return printable(cell) if isinstance(cell, str) else cell.plain


def _shown(cell: Text | str, column: Column, size: int) -> Text:
    from rich.text import Text

    text, style = (printable(cell), "") if isinstance(cell, str) else (cell.plain, cell.style)
    if column.cut and "\n" not in text and _cells(text) > size:
        length = size
        while _cells(shorten(text, length)) > size:  # characters that are two columns wide
            length -= 1
        return Text(shorten(text, length), style=style)
    return Text(text, style=style) if isinstance(cell, str) else cell


def _cell(value: object) -> Text | str:
    from rich.text import Text

    return value if isinstance(value, Text) else format_cell(value)


def format_cell(value: object) -> str:
    """A table cell as text: floats to four digits, None and NaN as a dash."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, float):
        return str(value)
    text = short_number(value, 4)
    return text.rstrip("0").rstrip(".") if "." in text and "×" not in text else text


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def fold(
    rows: Sequence[T], *, whole: bool, bad: Callable[[T], bool] | None = None, what: str = "rows"
) -> tuple[list[T], str]:
    """The first rows, and those after them with which something is wrong; and what is said of the others.

    All of them, and nothing to say, where they are few or the `whole` table is wanted.
    """
    if whole or len(rows) <= MOST + 5:
        return list(rows), ""
    is_bad = [bool(bad and bad(row)) for row in rows]
    wrong = [i for i, it in enumerate(is_bad) if it and i >= MOST][:MOST_BAD]
    shown = [*range(MOST), *wrong]
    left = len(rows) - len(shown)
    if not left:
        return list(rows), ""
    unseen = sum(is_bad) - sum(is_bad[i] for i in shown)
    also = f" ({unseen:,} of them with something wrong)" if unseen else ""
    return [rows[i] for i in shown], f"{left:,} more {what}{also}: --all-rows shows them"
