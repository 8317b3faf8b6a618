"""The one output sink: data on stdout, everything else on stderr.

Every command gets one `Console`. In human mode `out` prints tables and text; with `--json` the same
command's `data` prints one JSON document a line instead, so a command calls both and never asks which
mode it is in. Remarks, warnings, errors and progress go to stderr. rich is imported only when a table
or a progress bar is really drawn.
"""

from __future__ import annotations

import contextlib
import json as json_module
import math
import os
import shutil
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TextIO

from guda_cli.errors import GudaError
from guda_cli.jsonable import plain
from guda_cli.phrases import human_seconds, short_number

if TYPE_CHECKING:
    from rich.console import Console as RichConsole
    from rich.table import Table

    from guda_cli.time_left import Stages


PLAIN_SECONDS = 15.0  # a plain line at most this often
WIDE = 200  # columns of a table written to a file or a pipe
_ANSI = {"bold": "1", "dim": "2", "red": "1;31", "green": "32", "yellow": "33", "cyan": "36"}


class Console:
    """Where one command writes. `json`, `quiet` and `verbose` are the options of that name."""

    def __init__(self, *, json: bool = False, quiet: bool = False, verbose: bool = False) -> None:
        self.json = json
        self.quiet = quiet
        self.verbose = verbose
        self._mute = False
        self.stages: Stages | None = None
        """Where one command does several things after another: what meters say is then left of all of it."""
        self._bars: Any = None  # the rich bars now on the terminal

    def mute(self) -> None:
        """From here on nothing but errors, as text: another process prints the rest."""
        self._mute = self.quiet = True

    def out(self, what: object) -> None:
        """Print text or a rich renderable to stdout; nothing with `--json`. Text is never markup."""
        if self.json or self._mute:
            return
        with self._clear_of_bars():
            if isinstance(what, str):
                sys.stdout.write(what + "\n")
            else:
                _rich(sys.stdout).print(what)
            sys.stdout.flush()

    def data(self, document: Mapping[str, Any]) -> None:
        """Print one JSON document as one line to stdout; nothing without `--json`.

        The document names its `schema` ("guda.score/1"). NaN and infinities become null; numpy scalars,
        arrays, tuples and paths become plain values.
        """
        if not self.json or self._mute:
            return
        if "schema" not in document:
            raise ValueError("a JSON document must name its schema")
        text = json_module.dumps(plain(document), allow_nan=False)
        with self._clear_of_bars():
            sys.stdout.write(text + "\n")
            sys.stdout.flush()

    def say(self, text: str, style: str = "") -> None:
        """A remark for the person at the terminal: stderr, silent with `--quiet`."""
        if not self.quiet:
            _write_err(_styled(text, style))

    def detail(self, text: str) -> None:
        """A remark shown only with `--verbose`."""
        if self.verbose:
            self.say(text, "dim")

    def warn(self, text: str) -> None:
        """A warning on stderr, also with `--quiet`."""
        if not self._mute:
            _write_err(f"{_styled('warning:', 'yellow')} {text}")

    def error(self, err: GudaError) -> None:
        """What went wrong, why, and the next command; with `--json` also as a document on stdout."""
        lines = [f"{_styled('error:', 'red')} {err.message}"]
        if err.why:
            lines.append(f"  why: {_indented(err.why)}")
        if err.fix:
            lines.append(f"  {_styled('try:', 'cyan')} {_indented(err.fix)}")
        _write_err("\n".join(lines))
        self.data(
            {
                "schema": "guda.error/1",
                "error": err.message,
                "why": err.why,
                "fix": err.fix,
                "exit_code": err.exit_code,
            }
        )

    @contextlib.contextmanager
    def progress(self, title: str, total: int, unit: str = "step", start: int = 0) -> Iterator[Meter]:
        """Progress of `total` units, `start` of them done earlier; call `.advance(n, loss=0.03)`.

        A bar on a terminal; elsewhere, and with `--json`, a plain line now and then. May be nested.
        """
        with self._meter(title, total, unit, start) as meter:
            if self.stages is None:
                yield meter
                return
            meter.stages = self.stages
            self.stages.enter(meter)
            try:
                yield meter
            finally:
                self.stages.leave(meter)

    @contextlib.contextmanager
    def _meter(self, title: str, total: int, unit: str, start: int) -> Iterator[Meter]:
        if self.quiet:
            yield SilentMeter(title, total, unit, start)
            return
        if self.json or not is_terminal(sys.stderr):
            meter = PlainMeter(title, total, unit, start, write=_write_err)
            yield meter
            meter.finish()
            return
        bars = self._bars or Bars(_rich(sys.stderr))
        self._bars = bars
        try:
            with bars.task(title, total, unit, start) as bar:
                yield bar
        finally:
            if not bars.busy:
                self._bars = None

    def flush(self) -> None:
        """Write out what is buffered, so that a broken pipe shows now and not at exit."""
        sys.stdout.flush()

    def table(
        self,
        columns: Sequence[str],
        rows: Iterable[Sequence[object]],
        *,
        title: str | None = None,
        caption: str | None = None,
        right: Collection[str] = (),
    ) -> Table:
        """A rich table; columns of numbers, and those named in `right`, are aligned to the right."""
        return table(columns, rows, title=title, caption=caption, right=right)

    @contextlib.contextmanager
    def _clear_of_bars(self) -> Iterator[None]:
        """Take progress bars off the terminal while data is printed to it."""
        if self._bars is None or not is_terminal(sys.stdout):
            yield
            return
        with self._bars.paused():
            yield


def width_of(stream: TextIO) -> int:
    """Columns of what is written to `stream`: the terminal's or `COLUMNS`, `WIDE` for a file or a pipe."""
    return WIDE if _wide(stream) else shutil.get_terminal_size().columns


def _wide(stream: TextIO) -> bool:
    return not is_terminal(stream) and not os.environ.get("COLUMNS", "").isdigit()


def table(
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    title: str | None = None,
    caption: str | None = None,
    right: Collection[str] = (),
) -> Table:
    """See `Console.table`."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    rows = [list(row) for row in rows]
    made = Table(box=box.SIMPLE_HEAD, title_justify="left", caption_justify="left", pad_edge=False)
    made.title = Text(title, style="bold") if title else None
    made.caption = Text(caption, style="dim") if caption else None
    for i, name in enumerate(columns):
        cells = [row[i] for row in rows if row[i] is not None]
        numeric = name in right or (bool(cells) and all(_is_number(c) for c in cells))
        made.add_column(
            Text(name), justify="right" if numeric else "left", no_wrap=numeric or i == 0, overflow="fold"
        )
    for row in rows:
        made.add_row(*(cell if isinstance(cell, Text) else Text(format_cell(cell)) for cell in row))
    return made


def format_cell(value: object) -> str:
    """A table cell as text: floats to four digits, None and NaN as a dash."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def is_terminal(stream: TextIO) -> bool:
    """Whether `stream` is a terminal that understands cursor movement."""
    try:
        return stream.isatty() and os.environ.get("TERM") != "dumb"
    except ValueError:  # closed
        return False


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _indented(text: str) -> str:
    return text.strip().replace("\n", "\n       ")


def _styled(text: str, style: str) -> str:
    code = _ANSI.get(style)
    if code is None or os.environ.get("NO_COLOR") or not is_terminal(sys.stderr):
        return text
    return f"\x1b[{code}m{text}\x1b[0m"


def _write_err(text: str) -> None:
    with contextlib.suppress(BrokenPipeError, ValueError):  # nobody reads stderr any more
        sys.stderr.write(text + "\n")
        sys.stderr.flush()


def _rich(stream: TextIO) -> RichConsole:
    """A rich console on `stream` that lets a broken pipe through and is wide off a terminal."""
    from rich.console import Console as RichConsole

    class Plain(RichConsole):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError

    return Plain(
        file=stream, width=WIDE if _wide(stream) else None, markup=False, emoji=False, highlight=False
    )


class Meter:
    """Counts units done and knows rate and time left; subclasses show them."""

    def __init__(self, title: str, total: int, unit: str, start: int) -> None:
        self.title = title
        self.total = total
        self.unit = unit
        self.done = start
        self.fields: dict[str, Any] = {}
        self.stages: Stages | None = None
        self.first = start
        self.began = time.monotonic()

    def advance(self, n: int = 1, **fields: Any) -> None:
        """`n` more units are done; `fields` (say, loss=0.031) are shown beside them."""
        self.done += n
        self.fields.update(fields)
        self._show()

    def found(self, n: int = 1) -> None:
        """`n` more units were done already: they count, but say nothing of the rate."""
        self.first += n
        self.advance(n)

    @property
    def count(self) -> str:
        """`120/600`, or `120` while nobody knows the total (0)."""
        return f"{self.done}/{self.total}" if self.total else str(self.done)

    def info(self) -> str:
        """Rate, time left and fields: `12.3 steps/s, 0:40 left, loss 0.031`."""
        elapsed = time.monotonic() - self.began
        parts = []
        if self.done > self.first and elapsed > 0:
            rate = (self.done - self.first) / elapsed
            parts.append(f"{short_number(rate)} {self.unit}s/s")
            if self.total and self.stages is None:
                parts.append(f"{human_seconds(max(0, self.total - self.done) / rate)} left")
        if self.stages is not None:
            parts.append(f"{human_seconds(self.stages.left())} left of all")
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
        self._last = self.began
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
            took = human_seconds(time.monotonic() - self.began)
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
