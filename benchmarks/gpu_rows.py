"""The rows of `gpu.py`: measured, told as they are known, and put beside bare ones."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace


@dataclass(frozen=True)
class Row:
    """One figure, or why there is none."""

    section: str
    what: str
    value: float | None = None
    unit: str = ""
    group: str = ""
    """Which rows it is put beside, of any section: rates of the program beside the fastest bare one."""
    bare: bool = False
    ratio: float | None = None
    target: str = ""
    note: str = ""

    @property
    def failed(self) -> bool:
        """Whether there was to be a figure."""
        return self.note.startswith("failed")


class Out:
    """What a section measures on a device: `small` at small sizes, until the clock says `until`."""

    def __init__(
        self, section: str, device: str, small: bool, until: float, tell: Callable[[Row], None]
    ) -> None:
        self.section, self.device, self.small, self.until, self.tell = section, device, small, until, tell

    def left(self) -> float:
        """Seconds that are left."""
        return self.until - time.monotonic()

    def row(
        self,
        what: str,
        measure: Callable[[], float],
        unit: str,
        *,
        group: str = "",
        bare: bool = False,
        target: str = "",
        needs: float = 0.0,
    ) -> float | None:
        """Tell what `measure` gives; None, and in the row why, where it fails or has no time."""
        row = Row(self.section, what, unit=unit, group=group, bare=bare, target=target)
        if self.left() < (0.0 if self.small else needs):
            self.tell(replace(row, note=f"left out: it needs {needs:.0f} s"))
            return None
        try:
            value = float(measure())
        except Exception as err:  # noqa: BLE001 - the next row may go well
            self.tell(replace(row, note=f"failed: {first_line(err)}"))
            return None
        self.tell(replace(row, value=value))
        return value

    def say(self, what: str, note: str) -> None:
        """A row of words."""
        self.tell(Row(self.section, what, note=note))


def first_line(err: BaseException) -> str:
    """An error as one short line."""
    text = str(err).strip().splitlines()
    return f"{type(err).__name__}: {text[0] if text else ''}"[:160]


def to_line(row: Row) -> str:
    """For the process that started this one."""
    return json.dumps(asdict(row))


def of_line(line: str) -> Row | None:
    """The inverse of `to_line`; None for whatever else was printed."""
    try:
        return Row(**json.loads(line))
    except (TypeError, ValueError):
        return None


def ratios(rows: Sequence[Row]) -> list[Row]:
    """`rows` with each rate of a group that has bare ones as a share of their fastest."""
    best: dict[str, float] = {}
    for row in rows:
        if row.bare and row.value:
            best[row.group] = max(row.value, best.get(row.group, 0.0))
    found = []
    for row in rows:
        reference = best.get(row.group) if row.group else None
        ratio = row.value / reference if reference and row.value is not None else None
        found.append(replace(row, ratio=ratio))
    return found


def table(rows: Iterable[Row]) -> list[str]:
    """The lines of a section's table."""
    lines = []
    for row in rows:
        value = "" if row.value is None else f"{number(row.value)} {row.unit}"
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        rest = "; ".join(part for part in (row.target and f"target {row.target}", row.note) if part)
        lines.append(f"  {row.what:<58} {value:>22} {ratio:>6}   {rest}".rstrip())
    return lines


def number(value: float) -> str:
    """Four digits, as a person writes them."""
    if value >= 1000:
        return f"{value:,.0f}"
    if value >= 0.001 or value == 0:
        return f"{value:.4g}"
    return f"{value:.7f}".rstrip("0") if value >= 1e-6 else f"{value:.1e}".replace("e-0", "e-")
