"""Work in several stages of about known length, and how long all of it will still take."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol


class Counted(Protocol):
    """A meter: units done of a total (0: unknown), `first` of them before it began at `began`.

    `part` is what is done of further units, where several are worked on at once.
    """

    done: int
    part: float
    total: int
    first: float
    began: float


@dataclass(frozen=True)
class Stage:
    """One stage of the work. `seconds` are expected for what of it is still to do.

    `counted`: its outermost meter counts the whole of it, so that the meter's rate tells what is left.
    """

    name: str
    seconds: float
    counted: bool = True


class Stages:
    """Tells the time left over all stages.

    What was expected may be wrong by a factor, say where other programs run: what the stages so far have
    really taken tells by which.
    """

    def __init__(self, stages: Sequence[Stage], now: Callable[[], float] = time.monotonic) -> None:
        self._stages, self._now = list(stages), now
        self._at = -1
        self._began = now()
        self._taken = 0.0
        self._meters: list[Counted] = []

    def begin(self, name: str) -> None:
        """The stage of that name runs from now on; those before it have ended."""
        now = self._now()
        self._taken += now - self._began if self._at >= 0 else 0.0
        self._at = next(i for i, stage in enumerate(self._stages) if stage.name == name)
        self._began = now

    def enter(self, meter: Counted) -> None:
        """A meter counts, within those that do."""
        self._meters.append(meter)

    def leave(self, meter: Counted) -> None:
        """It has ended."""
        self._meters.remove(meter)

    def left(self) -> float:
        """Seconds until the last stage ends."""
        if self._at < 0:
            return sum(stage.seconds for stage in self._stages)
        stage, elapsed = self._stages[self._at], self._now() - self._began
        before = sum(stage.seconds for stage in self._stages[: self._at])
        later = sum(stage.seconds for stage in self._stages[self._at + 1 :])
        factor = self._taken / before if before else 1.0
        rest, counted = max(stage.seconds * factor - elapsed, 0.0), self._counted()
        if counted is not None:
            rest = counted if stage.counted else max(rest, counted)
            planned = before + stage.seconds
            factor = (self._taken + elapsed + rest) / planned if planned else factor
        return rest + factor * later

    def _counted(self) -> float | None:
        """Seconds left by the rate of the outermost meter, with what the inner ones have of its next unit."""
        if not self._meters:
            return None
        part = self._meters[0].part
        for meter in reversed(self._meters[1:]):
            part = (meter.done + part) / meter.total if meter.total else 0.0
        outer = self._meters[0]
        done, spent = outer.done - outer.first + part, self._now() - outer.began
        if not outer.total or done <= 0 or spent <= 0:
            return None
        return max(spent * (outer.total - outer.done - part) / done, 0.0)
