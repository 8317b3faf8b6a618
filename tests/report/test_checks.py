"""Checks of models without a group: three verdicts, and what held-out images say, on terminal and page."""

from __future__ import annotations

import dataclasses

import pytest

from guda_cli.report.answers import page, words
from guda_cli.report.answers.content import Check
from tests.report.builders import HELD_OUT, MEMBERSHIP, report

GOOD = Check("cat", 0.05, 0.07, 0.04, 0.041, True, "")
BAD = dataclasses.replace(GOOD, passed=False, verdict="failed")
DOUBT = Check("cat", 0.05, 0.07, 0.04, 0.041, False, "", "doubtful", HELD_OUT, MEMBERSHIP)


def test_older_checks_have_a_verdict() -> None:
    assert GOOD.verdict == "passed"
    assert Check("cat", 0.05, 0.07, 0.04, 0.041, False, "").verdict == "failed"


@pytest.mark.parametrize(
    ("checks", "line"),
    [
        ([GOOD, GOOD], "All 2 models passed."),
        ([GOOD, BAD], "1 of 2 checks failed: do not rely on the scores of these groups."),
        ([GOOD, DOUBT, DOUBT], "2 of 3 models are doubtful, for the reasons given."),
    ],
)
def test_the_line_counts_them(checks: list[Check], line: str) -> None:
    assert words.checks_line(checks) == line


def test_how_well_members_are_told() -> None:
    assert words.told_apart(DOUBT) == "0.72 → 0.66 ± 0.05"
    assert not words.told_apart(GOOD)


def test_the_page_has_columns_of_held_out_images_only_where_there_are_some() -> None:
    assert "Told apart" in page.render(report())
    text = page.render(report(checks=(GOOD, BAD)))
    assert "Told apart" not in text
    assert "FAILED" in text
