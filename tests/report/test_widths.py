"""Tables at every width: no line is longer, no name or number broken, long ones folded to what matters."""

from __future__ import annotations

import io

import pytest
from rich.cells import cell_len
from rich.console import Console, RenderableType

from guda_cli.report.answers import terminal, words
from guda_cli.report.answers.content import Check, GroupScore, QueryResult, summarise
from guda_cli.report.answers.image_rows import ImageRows
from guda_cli.tables import MOST, Column, Row, fitted, fold, layout, table
from tests.report.builders import query, report

WIDTHS = (40, 60, 80, 120, 200)
ARTISTS = tuple(f"artist-{i:03d}" for i in range(300))


def drawn(part: RenderableType, width: int, *, colour: bool = False) -> str:
    out = io.StringIO()
    Console(file=out, width=width, force_terminal=colour, color_system="standard" if colour else None).print(
        part
    )
    return out.getvalue()


def judged(name: str, first: float, *, named: int = 1, unlike: bool = False, **more: object) -> QueryResult:
    scores = tuple(
        GroupScore(f"artist-{i:03d}", first / (i + 1), 12.3, z=5.0 - i, stands_out=i < named)
        for i in range(5)
    )
    answer = () if unlike else tuple(one.group for one in scores[:named])
    return query(name, {}, scores=scores, answer=answer, unlike=unlike, **more)


MANY = [
    judged("queries/00000.png", 1234.5),
    judged("queries/00001.png", -87.25, named=0),
    judged("queries/00002.png", 501.0, named=2),
    judged("queries/00003.png", 3.0, unlike=True),
]


class TestImageRows:
    @pytest.mark.parametrize("width", WIDTHS)
    def test_columns_are_aligned_and_fit(self, width: int) -> None:
        rows = ImageRows([one.name for one in MANY], ARTISTS, MANY, width, 5)
        heads, rule, *lines = [part.plain for part in (*rows.heads(), *map(rows.row, MANY))]
        assert max(map(cell_len, (heads, rule, *lines))) <= width
        ends = {
            line.index(n) + len(n) for line, n in zip(lines, ("+1,234", "−87", "+501", "+3"), strict=True)
        }
        assert len(ends) == 1, lines  # one number of decimals, to the right, with a real minus
        verdicts = ("stands out", "no group", "2 stand out", "unlike data")
        starts = {line.index(verdict) for line, verdict in zip(lines, verdicts, strict=True)}
        assert len(starts) == 1, lines
        assert all("artist-000" in line for line in lines) == (width >= 60)
        assert all(one.name in line for one, line in zip(MANY, lines, strict=True)) == (width >= 60)
        assert ("artist-001*" in lines[2]) == (width >= 120)

    def test_colours_on_a_terminal_alone(self) -> None:
        rows = ImageRows(["a"], ARTISTS, MANY, 80, 1)
        assert "\x1b[32m" in drawn(rows.row(MANY[0]), 80, colour=True)
        assert "\x1b" not in drawn(rows.row(MANY[0]), 80)

    def test_prompts_stand_behind_the_answer_and_are_cut(self) -> None:
        one = judged("a.png", 5.0, prompts=("a cat in the style of " + "very " * 40,))
        for width in WIDTHS:
            rows = ImageRows(["a.png"], ARTISTS, [one], width, 1)
            line = rows.row(one).plain
            assert cell_len(line) <= width
            assert line.startswith("a.png")
            assert ("“a cat" in line) == (width >= 80)
            assert width < 80 or line.index("artist-000") < line.index("“a cat")
        text = drawn(terminal.query_table(one, 3, "nats", 80), 80)
        assert text.index("Stands out: artist-000") < text.index("a cat")

    def test_names_of_any_length_and_kind(self) -> None:
        one = judged("x" * 300 + "\x1b[31m.png", 5.0)
        line = ImageRows([one.name], ["g" * 200], [one], 80, 5).row(one).plain
        assert cell_len(line) <= 80
        assert "\x1b" not in line


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_bars_stay_on_narrow_terminals(width: int) -> None:
    assert "████████" in drawn(terminal.query_table(judged("a.png", 5.0), 3, "nats", width), width)


def test_the_legend_says_each_thing_once() -> None:
    text = " ".join(words.legend(True, judged=True, starred=True))
    assert text.count("Positive") == text.count("z:") == text.count("* stands out") == 1
    assert len(words.legend(False, judged=False, starred=True)) == 1


HUNDREDS = tuple(
    Check(name, 0.05, 0.07, 0.04, 0.041, i % 100 != 37, "the group's loss did not rise (−0.000756 ± 0.0024)")
    for i, name in enumerate(ARTISTS)
)


@pytest.mark.parametrize("width", WIDTHS)
def test_three_hundred_groups(width: int) -> None:
    queries = tuple(query(f"{i}.png", {name: 1.0}) for i, name in enumerate(ARTISTS[:60]))
    model = report(queries, groups=ARTISTS, checks=HUNDREDS, **summarise(queries, ARTISTS)._asdict())
    text = "".join(drawn(part, width) for part in terminal.render(model, 1, width))
    lines = text.splitlines()
    assert max(map(cell_len, lines)) <= width
    assert len(lines) < 170
    checks = [line for line in lines if "FAILED" in line]
    assert len(checks) == 3
    assert all(f"artist-{n}37" in line for n, line in enumerate(checks))
    assert "280 more checks" in text
    assert text.count("--all-rows") == 3  # images, means, checks
    whole = "".join(drawn(part, width) for part in terminal.render(model, 1, width, all_rows=True))
    assert "--all-rows" not in whole
    assert all(name in whole for name in ARTISTS)


def test_the_matrix_has_whole_names_where_they_fit() -> None:
    names = tuple(f"Domenico Theotok. {i}" for i in range(6))
    queries = tuple(query(f"{i}", dict.fromkeys(names, 1.0), name) for i, name in enumerate(names))
    model = report(queries, groups=names, checks=(), **summarise(queries, names)._asdict())

    def heads(width: int) -> str:
        text = "".join(drawn(part, width) for part in terminal.render(model, 1, width))
        assert max(map(cell_len, text.splitlines())) <= width
        return next(line for line in text.splitlines() if line.strip().startswith("looks like"))

    assert all(name in heads(200) for name in names)
    assert "…" in heads(100)


class TestFold:
    def test_the_first_rows_and_the_failures(self) -> None:
        shown, said = fold(range(300), whole=False, bad=lambda n: n in (3, 150, 299))
        assert shown == [*range(MOST), 150, 299]
        assert said == "278 more rows: --all-rows shows them"
        assert fold(range(300), whole=True) == (list(range(300)), "")
        assert fold(range(24), whole=False) == (list(range(24)), "")

    def test_when_everything_failed(self) -> None:
        shown, said = fold(range(300), whole=False, bad=lambda n: True)
        assert len(shown) == 70
        assert said == "230 more rows (230 of them with something wrong): --all-rows shows them"


class TestLayout:
    COLUMNS = (
        Column("step", cut=True),
        Column("status"),
        Column("why", wrap=True, drop=1),
        Column("forward-equivalents", right=True, drop=3, narrow="forward-\nequivalents"),
        Column("time", right=True, drop=2),
        Column("key", drop=4),
    )
    ROWS = (
        (
            "unlearn a-rather-long-name-of-a-group", "to do", "made before with other settings", "9,600",
            "5.2 s", "48f01130be",
        ),
        ("full model", "cached", "", "129,408", "0:52", "7a51fbee2d"),
    )  # fmt: skip

    @pytest.mark.parametrize("width", WIDTHS)
    def test_status_and_names_stay(self, width: int) -> None:
        text = drawn(table(self.COLUMNS, self.ROWS, width), width)
        assert max(map(cell_len, text.splitlines())) <= width
        assert "to do" in text
        assert "cached" in text
        assert ("unlearn a-rather-long-name-of-a-group" in text) == (width >= 60)
        assert ("7a51fbee2d" in text) == (width >= 120)
        for cell in ("129,408", "0:52"):  # numbers are whole or not there
            assert not set(text.split()) & {cell[:-1], cell[1:]}

    def test_what_goes_first(self) -> None:
        kept = {width: layout(self.COLUMNS, self.ROWS, width)[0] for width in (60, 80, 100, 200)}
        assert kept[200] == [0, 1, 2, 3, 4, 5]
        assert kept[100] == [0, 1, 2, 3, 4]
        assert kept[80][:3] == [0, 1, 2]
        assert kept[60] == [0, 1]

    def test_wide_characters_are_counted(self) -> None:
        text = drawn(
            fitted([Column("name", cut=True), Column("n", right=True)], [Row(["画" * 40, "1"])], 40), 40
        )
        assert max(map(cell_len, text.splitlines())) <= 40
        assert "…" in text
