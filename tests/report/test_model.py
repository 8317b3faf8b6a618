from __future__ import annotations

import math

import pytest

from guda_cli.report.answers.content import summarise
from tests.report.builders import query, report, score


def test_means_and_matrix_by_hand() -> None:
    queries = (
        query("a", {"cat": 1.0, "dog": 0.0}, "cat"),
        query("b", {"cat": 3.0, "dog": -2.0}, "cat"),
        query("c", {"cat": -1.0, "dog": 5.0}, "dog"),
        query("d", {"cat": 1.0, "dog": 1.0}, None),
    )
    means, matrix, counts = summarise(queries, ("cat", "dog", "bird"))
    assert [m.group for m in means] == ["cat", "dog", "bird"]
    assert means[0].mean == pytest.approx(1.0)
    # cat: deviations 0, 2, -2, 0 -> variance 8/3 -> se sqrt(8/3/4)
    assert means[0].se == pytest.approx(math.sqrt(8 / 12))
    assert means[1].mean == pytest.approx(1.0)
    assert math.isnan(means[2].mean)
    assert means[2].se is None
    assert list(matrix) == ["cat", "dog"]
    assert matrix["cat"]["cat"] == pytest.approx(2.0)
    assert matrix["cat"]["dog"] == pytest.approx(-1.0)
    assert matrix["dog"]["dog"] == pytest.approx(5.0)
    assert counts == {"cat": 2, "dog": 1}


def test_summary_needs_no_queries_and_takes_missing_scores() -> None:
    assert summarise((), ("cat",)).matrix == {}
    only = query("a", {}, "other", scores=(score("cat", 2.0),))
    means, matrix, counts = summarise((only,), ("cat", "dog"))
    assert means[0] == ("cat", 2.0, None)
    assert matrix["other"]["cat"] == 2.0
    assert math.isnan(matrix["other"]["dog"])
    assert counts == {"other": 1}


def test_summary_fills_the_report() -> None:
    assert report().matrix_counts == {"cat": 2, "dog": 1}
