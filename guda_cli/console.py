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
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, TextIO

from guda_cli.errors import GudaError

if TYPE_CHECKING:
    from rich.console import Console as RichConsole
    from rich.table import Table

    from guda_cli.progress import Meter

WIDE = 200  # columns of a table written to a file or a pipe
_ANSI = {"bold": "1", "dim": "2", "red": "1;31", "green": "32", "yellow": "33", "cyan": "36"}


class Console:
    """Where one command writes. `json`, `quiet` and `verbose` are the options of that name."""

    def __init__(self, *, json: bool = False, quiet: bool = False, verbose: bool = False) -> None:
        self.json = json
        self.quiet = quiet
        self.verbose = verbose
        self._mute = False
        self._bars: Any = None  # the rich bars now on the terminal (guda_cli.progress.Bars)

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
        from guda_cli.progress import Bars, PlainMeter, SilentMeter

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


def plain(value: Any) -> Any:
    """`value` with nothing but what JSON knows: NaN and infinities become None."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if value is None or isinstance(value, (str, int)):
        return value
    if isinstance(value, PurePath):
        return str(value)
    if hasattr(value, "tolist"):  # numpy scalars and arrays
        return plain(value.tolist())
    raise TypeError(f"{type(value).__name__} has no place in a JSON document")


def is_terminal(stream: TextIO) -> bool:
    """Whether `stream` is a terminal that understands cursor movement."""
    try:
        return stream.isatty() and os.environ.get("TERM") != "dumb"
    except ValueError:  # closed
        return False


def human_bytes(n: float) -> str:
    """1536 -> '1.5 KB' (powers of 1024)."""
    for unit in ("B", "KB", "MB", "GB"):
        if n < 1024:
            return f"{n:.0f} {unit}" if unit == "B" else f"{n:.1f} {unit}"
        n /= 1024
    return f"{n:.1f} TB"


def human_seconds(seconds: float) -> str:
    """75 -> '1:15'; under ten seconds with a decimal: '3.2 s'."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, secs = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{secs:02d}" if hours else f"{minutes}:{secs:02d}"


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

    wide = not is_terminal(stream) and not os.environ.get("COLUMNS", "").isdigit()
    return Plain(file=stream, width=WIDE if wide else None, markup=False, emoji=False, highlight=False)
