"""The output sink: what goes where, in which form."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

from guda_cli import console as progress
from guda_cli.console import Console
from guda_cli.errors import DataError
from guda_cli.jsonable import plain
from guda_cli.phrases import human_bytes, human_seconds
from guda_cli.tables import format_cell


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Make stderr a terminal (called by the test itself: pytest sets stderr anew before each phase)."""
    made = Terminal()
    monkeypatch.setattr(sys, "stderr", made)
    monkeypatch.setenv("TERM", "xterm")
    return made


class TestData:
    def test_nan_is_null(self, capsys) -> None:
        Console(json=True).data({"schema": "x/1", "a": float("nan"), "b": [float("inf"), 1.5]})
        assert json.loads(capsys.readouterr().out) == {"schema": "x/1", "a": None, "b": [None, 1.5]}

    def test_one_line_a_document(self, capsys) -> None:
        console = Console(json=True)
        for i in range(3):
            console.data({"schema": "x/1", "text": "a\nb", "i": i})
        lines = capsys.readouterr().out.splitlines()
        assert [json.loads(line)["i"] for line in lines] == [0, 1, 2]

    def test_the_schema_is_named(self) -> None:
        with pytest.raises(ValueError, match="schema"):
            Console(json=True).data({"a": 1})

    def test_numpy_paths_and_tuples(self) -> None:
        np = pytest.importorskip("numpy")
        given = {"a": np.float32(1.5), "b": np.arange(2), "c": (1, 2), "d": Path("x"), "e": np.float64("nan")}
        assert plain(given) == {"a": 1.5, "b": [0, 1], "c": [1, 2], "d": "x", "e": None}
        assert plain({"t": np.bool_(True), 3: np.int64(4)}) == {"t": True, "3": 4}

    def test_sets_have_one_order(self) -> None:
        assert plain({"a": {10, 9, 1}, "b": frozenset("cab")}) == {"a": [1, 10, 9], "b": ["a", "b", "c"]}

    def test_text_that_does_not_encode(self) -> None:
        given = {"a": "x\udcff.png", "b": Path("d/\udcfe"), "c": ["\ud800"]}
        assert plain(given) == {"a": "x\\xff.png", "b": "d/\\xfe", "c": ["\\ud800"]}
        keys = ["\udcff", "\udcfe"]  # two, never one
        assert list(plain(dict.fromkeys(keys, 1))) == ["\\xff", "\\xfe"]

    def test_what_has_no_place(self) -> None:
        with pytest.raises(TypeError, match="object"):
            plain(object())

    def test_human_and_json_exclude_each_other(self, capsys) -> None:
        for json_mode, expected in ((True, '{"schema": "x/1"}\n'), (False, "text\n")):
            console = Console(json=json_mode)
            console.out("text")
            console.data({"schema": "x/1"})
            assert capsys.readouterr().out == expected


class TestText:
    def test_text_is_not_markup(self, capsys) -> None:
        console = Console()
        console.out("[bold]group[/bold]")
        console.out(console.table(["group"], [["[red]x[/red]"]]))
        out = capsys.readouterr().out
        assert "[bold]group[/bold]" in out
        assert "[red]x[/red]" in out

    def test_quiet_keeps_warnings_and_errors(self, capsys) -> None:
        console = Console(quiet=True)
        console.say("remark")
        console.warn("careful")
        console.error(DataError("what", why="because", fix="guda status"))
        seen = capsys.readouterr()
        assert seen.err == "warning: careful\nerror: what\n  why: because\n  try: guda status\n"
        assert not seen.out

    def test_details_only_when_asked_for(self, capsys) -> None:
        Console().detail("x")
        Console(verbose=True).detail("y")
        assert capsys.readouterr().err == "y\n"

    def test_colour_only_on_a_terminal(self, monkeypatch: pytest.MonkeyPatch) -> None:
        screen = terminal(monkeypatch)
        Console().warn("x")
        assert "\x1b[" in screen.getvalue()
        for name, value in (("NO_COLOR", "1"), ("TERM", "dumb")):
            with monkeypatch.context() as patch:
                patch.setenv(name, value)
                screen.truncate(0)
                Console().warn("x")
                assert "\x1b[" not in screen.getvalue()


class TestTable:
    def test_long_names_stay_on_their_line(self, capsys) -> None:
        console = Console()
        console.out(console.table(["group", "score"], [["a" * 100, 1.5], ["b", -20.123456]]))
        lines = capsys.readouterr().out.splitlines()
        assert any("a" * 100 in line and "1.5" in line for line in lines)

    def test_numbers_are_aligned_to_the_right(self, capsys) -> None:
        console = Console()
        console.out(console.table(["group", "score"], [["a", 1.5], ["b", 1000.0], ["c", None]]))
        ends = [line.rstrip()[-5:] for line in capsys.readouterr().out.splitlines() if line.strip()]
        assert ends[-3:] == ["  1.5", "1,000", "    –"]

    def test_cells(self) -> None:
        assert [format_cell(x) for x in (None, float("nan"), 1.23456, 3, True, "x")] == [
            "–", "–", "1.235", "3", "yes", "x",
        ]  # fmt: skip

    def test_units(self) -> None:
        assert [human_bytes(n) for n in (0, 1023, 1536, 1 << 30)] == ["0 B", "1023 B", "1.5 KB", "1.0 GB"]
        assert [human_seconds(s) for s in (0.04, 9.9, 75, 3725)] == ["0.0 s", "9.9 s", "1:15", "1:02:05"]


class TestProgress:
    def test_short_work_says_nothing_off_a_terminal(self, capsys) -> None:
        with Console().progress("train", 3) as bar:
            for _ in range(3):
                bar.advance(loss=0.5)
        assert capsys.readouterr().err == ""
        assert bar.done == 3

    @pytest.mark.parametrize("json_mode", [False, True])
    def test_long_work_says_a_line_now_and_then(self, capsys, monkeypatch, json_mode: bool) -> None:
        clock = iter(range(0, 10_000, 4))
        monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(clock)))
        with Console(json=json_mode).progress("train", 40, start=10) as bar:
            for _ in range(30):
                bar.advance(loss=0.03125)
        lines = capsys.readouterr().err.splitlines()
        assert 5 < len(lines) < 20
        assert lines[0].startswith("train: 1")
        assert "/40 steps, " in lines[0]
        assert "left, loss 0.03125" in lines[0]
        assert lines[-1].startswith("train: 40/40 steps in ")

    def test_quiet(self, capsys, monkeypatch) -> None:
        monkeypatch.setattr(progress, "PLAIN_SECONDS", 0.0)
        with Console(quiet=True).progress("train", 3) as bar:
            bar.advance()
        assert capsys.readouterr().err == ""

    def test_bars_on_a_terminal(self, monkeypatch, capsys) -> None:
        screen, console = terminal(monkeypatch), Console()
        with console.progress("outer", 2) as outer, console.progress("inner", 0, unit="image") as inner:
            inner.total = 5
            inner.advance(2, loss=0.5)
            console.out("data")
            outer.advance()
        drawn = screen.getvalue()
        assert "outer" in drawn
        assert "inner" in drawn
        assert capsys.readouterr().out == "data\n", "bars must not get into the data"

    def test_a_second_bar_after_the_first(self, monkeypatch) -> None:
        screen, console = terminal(monkeypatch), Console()
        for name in ("first", "second"):
            with console.progress(name, 1) as bar:
                bar.advance()
        assert "second" in screen.getvalue()

    def test_an_error_passes_through(self, monkeypatch) -> None:
        terminal(monkeypatch)
        console = Console()
        with pytest.raises(ZeroDivisionError), console.progress("x", 1):
            raise ZeroDivisionError
        assert console._bars is None


def test_counts_of_forwards_are_whole() -> None:
    """Estimates multiply by shares: 853.333 passes are none."""
    found = plain({"forwards": 853.3333, "rows": [{"prepare_forwards": 2.5, "query_forwards": float("nan")}]})
    assert found == {"forwards": 853, "rows": [{"prepare_forwards": 2, "query_forwards": None}]}
    assert isinstance(found["forwards"], int)
    assert plain({"speedup_forwards": 1.25, "seconds": 0.5}) == {"speedup_forwards": 1.25, "seconds": 0.5}
