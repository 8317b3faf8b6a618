"""Progress meters: rich bars for a terminal, plain lines elsewhere, nothing with `--quiet`."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from guda_cli.console import human_seconds

if TYPE_CHECKING:
    from rich.console import Console as RichConsole

PLAIN_SECONDS = 15.0  # a plain line at most this often


class Meter:
    """Counts units done and knows rate and time left; subclasses show them."""

    def __init__(self, title: str, total: int, unit: str, start: int) -> None:
        self.title = title
        self.total = total
        self.unit = unit
        self.done = start
        self.fields: dict[str, Any] = {}
        self._first = start
        self._began = time.monotonic()

    def advance(self, n: int = 1, **fields: Any) -> None:
        """`n` more units are done; `fields` (say, loss=0.031) are shown beside them."""
        self.done += n
        self.fields.update(fields)
        self._show()

    @property
    def count(self) -> str:
        """`120/600`, or `120` while nobody knows the total (0)."""
        return f"{self.done}/{self.total}" if self.total else str(self.done)

    def info(self) -> str:
        """Rate, time left and fields: `12.3 steps/s, 0:40 left, loss 0.031`."""
        elapsed = time.monotonic() - self._began
        parts = []
        if self.done > self._first and elapsed > 0:
            rate = (self.done - self._first) / elapsed
            parts.append(f"{rate:.3g} {self.unit}s/s")
            if self.total:
                parts.append(f"{human_seconds(max(0, self.total - self.done) / rate)} left")
        parts += [f"{name} {_short(value)}" for name, value in self.fields.items()]
        return ", ".join(parts)

    def _show(self) -> None:
        raise NotImplementedError


class SilentMeter(Meter):
    """Counts and shows nothing."""

    def _show(self) -> None:
        pass


class PlainMeter(Meter):
    """A line every `PLAIN_SECONDS`; work shorter than that stays silent."""

    def __init__(
        self, title: str, total: int, unit: str, start: int, *, write: Callable[[str], None]
    ) -> None:
        super().__init__(title, total, unit, start)
        self._write = write
        self._last = self._began
        self._spoke = False

    def _show(self) -> None:
        now = time.monotonic()
        if now - self._last >= PLAIN_SECONDS:
            self._last = now
            self._spoke = True
            self._write(f"{self.title}: {self.count} {self.unit}s, {self.info()}")

    def finish(self) -> None:
        """A closing line when there were others."""
        if self._spoke:
            took = human_seconds(time.monotonic() - self._began)
            self._write(f"{self.title}: {self.count} {self.unit}s in {took}")


class Bars:
    """The rich bars on a terminal; one display for all, so that meters may be nested."""

    def __init__(self, console: RichConsole) -> None:
        from rich.progress import BarColumn, Progress, TextColumn

        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[count]}", markup=False),
            TextColumn("{task.fields[info]}", markup=False, style="dim"),
            console=console,
            transient=True,
            redirect_stdout=False,
        )
        self._tasks = 0

    @property
    def busy(self) -> bool:
        """Whether any meter is still shown."""
        return self._tasks > 0

    @contextlib.contextmanager
    def task(self, title: str, total: int, unit: str, start: int) -> Iterator[Meter]:
        """One bar, taken away when the block ends."""
        if not self._tasks:
            self._progress.start()
        self._tasks += 1
        bar = _Bar(self._progress, title, total, unit, start)
        try:
            yield bar
        finally:
            self._tasks -= 1
            if not self._tasks:
                self._progress.stop()  # before the bar goes: what is left empty would stay as a blank line
            self._progress.remove_task(bar.task)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Bars off the screen for a moment."""
        self._progress.stop()
        try:
            yield
        finally:
            if self._tasks:
                self._progress.start()


class _Bar(Meter):
    def __init__(self, progress: Any, title: str, total: int, unit: str, start: int) -> None:
        super().__init__(title, total, unit, start)
        self._progress = progress
        self.task = progress.add_task(title, total=total or None, completed=start, count=self.count, info="")

    def _show(self) -> None:
        self._progress.update(
            self.task, total=self.total or None, completed=self.done, count=self.count, info=self.info()
        )


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
