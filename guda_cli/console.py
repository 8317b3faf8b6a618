"""The one output sink: data on stdout, everything else on stderr.

Every command gets one `Console`. In human mode `out` prints tables and text; with `--json` the same
command's `data` prints one JSON document a line instead, so a command calls both and never asks which
mode it is in. Remarks, warnings, errors and progress go to stderr. rich is imported only when a table
or a progress bar is really drawn.

Text for people is printed with control characters as one reads them (`plain_text.printable`): names of files
and groups are others' to choose. `file` is for what programs read.
"""

from __future__ import annotations

import contextlib
import json as json_module
import os
import sys
import textwrap
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

from guda_cli import plain_text, typed_number
from guda_cli.errors import GudaError
from guda_cli.jsonable import plain
from guda_cli.phrases import human_seconds, short_number
from guda_cli.plain_text import shorten
from guda_cli.standard_streams import silence
from guda_cli.tables import Column, fold, table

if TYPE_CHECKING:
    from rich.console import Console as RichConsole
    from rich.console import ConsoleOptions, RenderResult
    from rich.table import Table

    from guda_cli.time_left import Stages


T = TypeVar("T")
LONGEST = 4000  # characters of one message
PLAIN_SECONDS = 15.0  # a plain line at most this often
WIDE = 200  # columns of a table written to a file or a pipe
WIDEST = 10_000  # that are believed of COLUMNS
_ANSI = {"bold": "1", "dim": "2", "red": "1;31", "green": "32", "yellow": "33", "cyan": "36"}


class Console:
    """Where one command writes. `json`, `quiet`, `verbose` and `all_rows` are the options of that name."""

    def __init__(
        self, *, json: bool = False, quiet: bool = False, verbose: bool = False, all_rows: bool = False
    ) -> None:
        self.json = json
        self.quiet = quiet
        self.verbose = verbose
        self.all_rows = all_rows  # long tables are not folded
        self._mute = False
        self.stages: Stages | None = None
        """Where one command does several things after another: what meters say is then left of all of it."""
        self._bars: Any = None  # the rich bars now on the terminal

    def mute(self) -> None:
        """From here on nothing but errors, as text: another process prints the rest."""
        self._mute = self.quiet = True

    def out(self, *what: object) -> None:
        """Print lines of text or rich renderables to stdout; nothing with `--json`. Text is never markup.

        Lines stay as they are; `prose` is what a person reads, and wrapped between words.
        """
        if self.json or self._mute:
            return
        with self._clear_of_bars():
            for each in what:
                if isinstance(each, str):
                    sys.stdout.write(plain_text.printable(each) + "\n")
                else:
                    _rich(sys.stdout).print(_readable(each))
            sys.stdout.flush()

    def file(self, text: str) -> None:
        """Print what a program reads (CSV, LaTeX, a page) to stdout; nothing with `--json`.

        Every character as it is, save on a terminal, which must not obey them.
        """
        if self.json or self._mute:
            return
        with self._clear_of_bars():
            sys.stdout.write((plain_text.lines(text) if is_terminal(sys.stdout) else text) + "\n")
            sys.stdout.flush()

    def prose(self, text: str) -> None:
        """Print a sentence to stdout, for a person; nothing with `--json`."""
        self.out(*wrapped(plain_text.printable(text), width_of(sys.stdout)).split("\n"))

    def data(self, document: Mapping[str, Any]) -> None:
        """Print one JSON document as one line to stdout; nothing without `--json`.

        The document names its `schema` ("guda.score/1"). NaN and infinities become null; numpy scalars,
        arrays, tuples and paths become plain values.
        """
        if not self.json or self._mute:
            return
        if "schema" not in document:
            raise ValueError("a JSON document must name its schema")
        text = json_module.dumps(plain(document), allow_nan=False).replace("\x7f", "\\u007f")
        with self._clear_of_bars():
            sys.stdout.write(text + "\n")
            sys.stdout.flush()

    def say(self, text: str, style: str = "") -> None:
        """A remark for the person at the terminal: stderr, silent with `--quiet`."""
        if not self.quiet:
            _write_err(_styled(wrapped(_told(text), _err_width()), style))

    def detail(self, text: str) -> None:
        """A remark shown only with `--verbose`."""
        if self.verbose:
            self.say(text, "dim")

    def warn(self, text: str) -> None:
        """A warning on stderr, also with `--quiet`."""
        if not self._mute:
            _write_err(_led("warning:", "yellow", _told(text)))

    def error(self, err: GudaError) -> None:
        """What went wrong, why, and the next command; with `--json` also as a document on stdout."""
        message, why, fix = (shorten(text, LONGEST) for text in (err.message, err.why, err.fix))
        lines = [_led("error:", "red", plain_text.printable(message))]
        if why:
            lines.append(_led("  why:", "", plain_text.lines(why)))
        if fix:
            # A command stays on its line, to be copied; what is none is read, not tried.
            command = is_command(fix)
            lead, text = ("  try:" if command else "  fix:"), plain_text.printable(fix.strip())
            lines.append(f"{_styled(lead, 'cyan')} {text}" if command else _led(lead, "cyan", text))
        _write_err("\n".join(lines))
        self.data(
            {
                "schema": "guda.error/1",
                "error": message,
                "why": why,
                "fix": fix,
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
        columns: Sequence[str | Column],
        rows: Iterable[Sequence[object]],
        *,
        title: str | None = None,
        caption: str | None = None,
        right: Collection[str] = (),
    ) -> Table:
        """A rich table as wide as stdout; see `tables.table`."""
        return table(columns, rows, width_of(sys.stdout), title=title, caption=caption, right=right)

    def fold(self, rows: Sequence[T], bad: Callable[[T], bool] | None = None) -> tuple[list[T], str]:
        """Rows of a table, folded unless `--all-rows` was given, and what is said of the others."""
        return fold(rows, whole=self.all_rows, bad=bad)

    @contextlib.contextmanager
    def _clear_of_bars(self) -> Iterator[None]:
        """Take progress bars off the terminal while data is printed to it."""
        if self._bars is None or not is_terminal(sys.stdout):
            yield
            return
        with self._bars.paused():
            yield


def width_of(stream: TextIO) -> int:
    """Columns of what is written to `stream`: `COLUMNS`, else the terminal's, `WIDE` for a file or a pipe."""
    said = _said_columns()
    if said or not is_terminal(stream):
        return said or WIDE
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (OSError, ValueError):  # a terminal that is none
        return 80


def _said_columns() -> int | None:
    said = typed_number.whole(os.environ.get("COLUMNS", ""))
    return min(said, WIDEST) if said else None


def _err_width() -> int | None:
    """Columns of stderr; None where it is a file or a pipe, whose lines are not wrapped."""
    return width_of(sys.stderr) if is_terminal(sys.stderr) or _said_columns() else None


def wrapped(text: str, width: int | None, indent: int = 0) -> str:
    """`text` in lines of at most `width` columns, broken between words alone; later ones are indented."""
    if width is None:
        return text.strip("\n").replace("\n", "\n" + " " * indent)
    room = max(width, indent + 20)
    wrap = textwrap.TextWrapper(
        room, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False,
        replace_whitespace=False, drop_whitespace=True,
    )  # fmt: skip
    lines = [wrap.fill(" " * indent + line) for line in text.strip("\n").split("\n")]
    return "\n".join(lines)[indent:]


def is_command(fix: str) -> bool:
    """Whether what an error says to try can be typed into a shell."""
    return fix.strip().startswith(("guda ", "pip ", "accelerate ", "unset "))


def _told(text: str) -> str:
    """A remark as it may be written: not without end, and no character that a terminal obeys."""
    return plain_text.printable(shorten(text.strip("\n"), LONGEST))


def _led(lead: str, style: str, text: str) -> str:
    """A coloured lead and a text beside it."""
    return f"{_styled(lead, style)} {wrapped(text.strip(), _err_width(), len(lead) + 1)}"


def is_terminal(stream: TextIO) -> bool:
    """Whether `stream` is a terminal that understands cursor movement."""
    try:
        return stream.isatty() and os.environ.get("TERM") != "dumb"
    except ValueError:  # closed
        return False


def _styled(text: str, style: str) -> str:
    code = _ANSI.get(style)
    if code is None or os.environ.get("NO_COLOR") or not is_terminal(sys.stderr):
        return text
    return f"\x1b[{code}m{text}\x1b[0m"


def _write_err(text: str) -> None:
    try:
        sys.stderr.write(text + "\n")
        sys.stderr.flush()
    except (OSError, ValueError):  # nobody reads it any more, or its disk is full: no reason to end
        silence(sys.stderr)


def _rich(stream: TextIO) -> RichConsole:
    """A rich console on `stream` that lets a broken pipe through and is wide off a terminal."""
    from rich.console import Console as RichConsole

    class Plain(RichConsole):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError

    return Plain(file=stream, width=width_of(stream), markup=False, emoji=False, highlight=False)


def _readable(what: object) -> object:
    """A renderable whose text holds no character that a terminal obeys."""
    from rich.segment import Segment

    class Readable:
        def __rich_console__(self, console: RichConsole, options: ConsoleOptions) -> RenderResult:
            for segment in console.render(what, options):  # type: ignore[arg-type]
                if segment.control:
                    yield segment
                else:
                    yield Segment(plain_text.lines(segment.text), segment.style)

    return Readable()


class Meter:
    """Counts units done and knows rate and time left; subclasses show them."""

    def __init__(self, title: str, total: int, unit: str, start: int) -> None:
        self.title = plain_text.printable(title)
        self.total = total
        self.unit = unit
        self.done = start
        self.part = 0.0  # of further units, which are worked on at once
        self.fields: dict[str, Any] = {}
        self.stages: Stages | None = None
        self.first: float = start
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

    def within(self, part: float, **fields: Any) -> None:
        """So much of further units is done: `part` is a sum of shares where several are worked on at once."""
        self.part = part
        self.fields.update(fields)
        self._show()

    @property
    def count(self) -> str:
        """`120/600`, or `120` while nobody knows the total (0)."""
        return f"{self.done}/{self.total}" if self.total else str(self.done)

    def info(self) -> str:
        """Rate, time left and fields: `12.3 steps/s, 0:40 left, loss 0.031`."""
        elapsed = time.monotonic() - self.began
        parts = []
        done = self.done + self.part
        if done > self.first and elapsed > 0:
            rate = (done - self.first) / elapsed
            parts.append(f"{short_number(rate)} {self.unit}s/s")
            if self.total and self.stages is None:
                parts.append(f"{human_seconds(max(0, self.total - done) / rate)} left")
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
        self.task = progress.add_task(
            self.title, total=total or None, completed=start, count=self.count, info=""
        )

    def _show(self) -> None:
        self._progress.update(
            self.task,
            total=self.total or None,
            completed=self.done + self.part,
            count=self.count,
            info=self.info(),
        )


def _short(value: Any) -> str:
    return short_number(value, 4) if isinstance(value, float) else plain_text.printable(value)
