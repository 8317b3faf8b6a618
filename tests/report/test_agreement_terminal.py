from __future__ import annotations

import re

import pytest
from rich.cells import cell_len

from guda_cli.report.agreement.terminal import LEGEND, render_terminal
from guda_cli.report.agreement.words import CEILING_TITLE, STEPS_TITLE
from tests.report.agreement_builders import report, row, rows, table
from tests.report.test_terminal import shown


@pytest.mark.parametrize("width", [80, 100, 120, 200])
def test_every_row_and_value_is_there_and_fits(width: int) -> None:
    text = shown(render_terminal(report(), width), width)
    assert max(map(cell_len, text.splitlines())) <= width
    flat = re.sub(r"\s+", " ", text)
    for part in ("seeds 2, 3, 4", "queries 256", "left out (tuned on) digit 8, digit 9", "2^rel", "RBO 0.57"):
        assert part in flat
    for part in ("no ranking of methods can be trusted", "<u>careful</u>", "Not distinguishable from guda"):
        assert part in flat
    for one in rows():
        start = one.name[:8]
        assert sum(line.strip(" *≈").startswith(start) for line in text.splitlines()) >= 3  # tables and cost
        assert f"{one.metrics['kendall'].value:.2f}" in text
    assert text.count("±.05") >= 2 * 8 * len(rows())
    assert not set(text) & {"\x1b", "\u202e"}


@pytest.mark.parametrize("width", [40, 60])
def test_narrow_terminals_keep_names_and_whole_numbers(width: int) -> None:
    text = shown(render_terminal(report(), width), width)
    assert max(map(cell_len, text.splitlines())) <= width
    table = text.split("Agreement with the oracle")[1]
    assert all(f" {one.name[:3]}" in table for one in rows())
    assert "0.…" not in text
    assert "±.…" not in text


def test_the_best_and_those_like_it_are_marked() -> None:
    lines = [line.strip() for line in shown(render_terminal(report(), 120), 120).splitlines()]
    assert [line.split()[1] for line in lines if line.startswith("* ") and line != LEGEND] == ["guda"] * 2
    assert [line.split()[1] for line in lines if line.startswith("≈ ")] == ["das"] * 2


def test_narrow_terminals_put_intervals_below() -> None:
    narrow = shown(render_terminal(report(), 80), 80)
    wide = shown(render_terminal(report(), 120), 120)
    assert "0.60±.05" in wide
    assert "0.60±.05" not in narrow.split("Cost")[0]
    assert re.search(r"\* guda +0\.60 +0\.61", narrow)


def test_costs_stand_once_unless_they_differ() -> None:
    once = shown(render_terminal(report(), 120), 120)
    assert once.count("speed-up is over LOGO's") == 1
    other = table("elbo", rows=(row("guda", 0.5, prepare=1.0),))
    twice = shown(render_terminal(report(tables=(table(), other)), 120), 120)
    assert twice.count("speed-up is over LOGO's") == 2
    assert "Cost under elbo" in twice


def test_no_headings_without_data() -> None:
    free = dict.fromkeys(("prepare_seconds", "query_forwards", "query_seconds", "speedup_seconds"))
    bare = table(rows=(row("guda", 0.5, prepare=None, **free),))
    text = shown(render_terminal(report(tables=(bare,), bands=(), steps=()), 80), 80)
    assert "Cost" not in text
    assert CEILING_TITLE not in text
    assert STEPS_TITLE not in text
    empty = shown(render_terminal(report(tables=(), bands=(), steps=()), 80), 80)
    assert "Agreement with the oracle" not in empty


def test_bands_and_steps_have_a_line_a_point() -> None:
    text = shown(render_terminal(report(), 120), 120)
    bands, steps = text.split(CEILING_TITLE)[1].split(STEPS_TITLE)
    assert len(re.findall(r"^ *\d+–\d+ ", bands, re.M)) == 3
    assert len(re.findall(r" (5|20|100) +0\.\d\d±", steps)) == 6
