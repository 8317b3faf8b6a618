from __future__ import annotations

import pytest

from guda_cli.report.agreement import standing, words
from guda_cli.report.agreement.content import CEILING, RANDOM, Interval
from guda_cli.report.agreement.figures import half_text, range_text, speedup_text, time_text, work_text
from tests.report.agreement_builders import HOSTILE, metrics, report, row, table

NAN = float("nan")


def test_methods_by_top1_then_random_then_the_ceiling() -> None:
    placed = standing.placed(table())
    assert [p.row.name for p in placed] == [
        *("guda", "das", "similarity", HOSTILE),
        *("random", "ceiling (LOGO, other seed)"),
    ]
    assert [p.place for p in placed] == [
        *(standing.BEST, standing.CLOSE, standing.BEHIND, standing.BEHIND),
        *(standing.APART, standing.APART),
    ]
    assert [p.rank for p in placed] == [1, 2, 3, 4, None, None]


@pytest.mark.parametrize(("top", "place"), [(0.5, standing.CLOSE), (0.499, standing.BEHIND)])
def test_close_means_that_the_intervals_touch(top: float, place: str) -> None:
    second = row("b", top, metrics={"top1": Interval(top, top - 0.1, top + 0.05)})
    first = row("a", 0.6, metrics={"top1": Interval(0.6, 0.55, 0.65)})
    assert standing.placed(table(rows=(second, first)))[1].place == place


def test_methods_without_a_value_come_last_and_are_kept() -> None:
    empty = row("empty", 0.0, metrics={})
    unknown = row("unknown", 0.0, metrics=metrics(NAN))
    placed = standing.placed(table(rows=(empty, unknown, row("guda", 0.1))))
    assert [p.place for p in placed] == [standing.BEST, standing.BEHIND, standing.BEHIND]
    assert placed[0].row.name == "guda"
    assert "no method has a top-1" in words.verdict(table(rows=(empty,)))


def test_the_verdict_names_the_best_and_the_ceiling() -> None:
    assert words.verdict(table()) == (
        "Under min-snr:5 guda agrees best with the oracle, not distinguishable from 1 more: "
        "top-1 0.60 (0.55 to 0.65; ceiling 0.65)."
    )


def test_reliability_says_when_nothing_can_be_trusted() -> None:
    good, bad = report().tables
    assert words.reliability_line(report(), good) == (
        "Reliability of the oracle: 0.50 for one seed, 0.75 for the mean over 3 seeds."
    )
    assert "under 0.7: no ranking of methods can be trusted" in words.reliability_line(report(), bad)
    assert words.grave(words.reliability_line(report(), bad))
    single = table(reliability=None, reliability_mean=None)
    assert "one seed" in words.reliability_line(report(), single)
    assert "--seeds" in words.reliability_line(report(), single)


def test_notes_say_where_all_is_noise() -> None:
    plain = " ".join(words.notes(report(), table()))
    assert "Not distinguishable from guda in top-1: das." in plain
    assert "cost not known" in plain
    assert "Near the noise" not in plain
    blind = row("blind", 0.5, metrics=metrics(0.5, spearman=Interval(0.02, -0.01, 0.05)))
    chance = row("random", 0.1, RANDOM, metrics=metrics(0.1, spearman=Interval(0.0, -0.01, 0.01)))
    ceiling = row("ceiling", 0.29, CEILING, metrics=metrics(0.29, rbo=Interval(0.2, 0.1, 0.3)))
    found = words.notes(report(), table(rows=(row("guda", 0.6), blind, chance, ceiling)))
    noise = [line for line in found if words.grave(line)]
    assert "(top-1 0.29)" in noise[0]  # RBO 0.2 is 0.35 of its maximum; MRR is 0.30
    assert "contains 0 for blind:" in noise[1]


def test_a_lone_winner_is_said() -> None:
    found = words.notes(report(), table(rows=(row("guda", 0.9), row("das", 0.1))))
    assert "No other method's top-1 interval reaches that of guda." in found


def test_facts() -> None:
    found = dict(words.facts(report()))
    assert found["Oracle seeds"] == "2, 3, 4"
    assert found["Left out (tuned on)"] == "digit 8, digit 9"
    assert found["Largest RBO"] == "0.57"
    assert found["LOGO's preparation"] == "40.0 M forward-equivalents, 2 h 00 min"
    assert "2^rel" in found["NDCG"]
    assert "Scores" in found
    bare = dict(words.facts(report(centred=False, left_out=(), logo_forwards=None, logo_seconds=None)))
    assert not {"Scores", "Left out (tuned on)", "LOGO's preparation"} & bare.keys()


def test_short_texts() -> None:
    interval = Interval(-0.1, -0.145, -0.055)
    assert half_text(interval) == "±.04"
    assert half_text(Interval(0.5, -1.0, 2.0)) == "±1.50"
    assert range_text(interval) == "−0.14 to −0.06"
    assert half_text(None) == range_text(Interval(NAN, NAN, NAN)) == ""
    assert [work_text(v) for v in (None, 0.0, 2.4, 812.0, 12_345.0, 1.32e6, 999_800.0, 3.2e9)] == [
        *("–", "0", "2.4", "812", "12.3 k", "1.32 M", "1.00 M", "3.20 G")
    ]
    assert [time_text(v) for v in (None, 0.0, 0.0021, 61.0, 7200.0)] == [
        "–",
        "0 s",
        "0.0021 s",
        "61 s",
        "2 h 00 min",
    ]
    assert [speedup_text(v) for v in (None, 1.0, 24.4, 123.0)] == ["–", "×1.0", "×24", "×123"]
