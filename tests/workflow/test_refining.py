"""More draws where they are needed, and nowhere else."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from guda_cli.attribution.calibration import Calibration
from guda_cli.attribution.delta_elbo import Estimate
from guda_cli.errors import UsageError
from guda_cli.workflow.scoring.refining import Scores, in_the_balance, refine, until

INF = 1e9  # degrees of freedom


def scores(value: list[list[float]], se: float | list[list[float]] = 1.0, draws: int = 2) -> Scores:
    values = np.array(value)
    errors = np.broadcast_to(np.array(se, dtype=float), values.shape).copy()
    return Scores(values, errors, np.full(values.shape, INF), np.full(values.shape, draws))


class Halving:
    """Errors fall with the root of the draws; hears what it was asked for."""

    def __init__(self, given: Scores, lacking: int | None = None) -> None:
        self.given, self.lacking, self.asked = given, lacking, list[tuple[int, list[int], int]]()

    def __call__(self, j: int, rows: Sequence[int], draws: int) -> Estimate | None:
        self.asked.append((j, [*rows], draws))
        if j == self.lacking:
            return None
        se = self.given.se[rows, j] * np.sqrt(2 / draws)
        return Estimate(self.given.value[rows, j], se, np.full(len(se), INF))


def test_the_first_group_is_drawn_until_its_error_is_small_enough() -> None:
    given = scores([[5.0, 1.0], [2.0, 9.0]], [[4.0, 4.0], [4.0, 1.0]])
    more = Halving(given)
    found = refine(given, until("2"), more, 64)
    assert more.asked == [(0, [0], 4), (0, [0], 8)]  # 4, 2.8, 2: the second image is sure already
    assert found.draws.tolist() == [[8, 2], [2, 2]]
    assert found.se[0, 0] == pytest.approx(2.0)


def test_not_beyond_the_most_and_not_where_there_is_no_more() -> None:
    given = scores([[5.0, 1.0]], 100.0)
    assert refine(given, until("1"), Halving(given), 16).draws.tolist() == [[16, 2]]
    assert refine(given, until("1"), Halving(given), 2).draws.tolist() == [[2, 2]]
    more = Halving(given, lacking=0)
    assert refine(given, until("1"), more, 64).draws.tolist() == [[2, 2]]
    assert more.asked == [(0, [0], 4)]


def test_how_sure_the_first_is_by_hand() -> None:
    """Gaps of 2 and 4 standard errors of the difference, sqrt 2: 1 - 0.02275 - 0.0000317."""
    root = float(np.sqrt(2.0))
    found = scores([[4 * root, 2 * root, 0.0], [1.0, 1.0, -50.0]]).first_is_first
    np.testing.assert_allclose(found, [1 - 0.022750 - 0.0000317, 0.5], atol=1e-5)
    assert scores([[3.0]]).first_is_first.tolist() == [1.0]


def test_contenders_are_drawn_until_the_first_is_sure() -> None:
    given = scores([[10.0, 9.0, -30.0], [30.0, 1.0, -30.0]])
    more = Halving(given)
    found = refine(given, until("95%"), more, 64)
    assert {(j, rows[0]) for j, rows, _ in more.asked} == {(0, 0), (1, 0)}
    assert found.first_is_first.min() >= 0.95


@pytest.mark.parametrize("text", ["", "x", "0", "-1", "100%", "0%", "nan", "inf", "%", "95%%"])
def test_other_words_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--until"):
        until(text)


def test_only_verdicts_in_the_balance_are_drawn_again() -> None:
    """Group 0 stands out from about 2 on: 2.5 is within its error of that, 9 and -9 are not.

    Then all of the image's groups are, as each is seen beside the others.
    """
    rng = np.random.default_rng(0)
    members = np.eye(2, dtype=bool)[np.arange(400) % 2]
    known = Calibration(rng.normal(size=(400, 2)), members, np.zeros(400, dtype=bool))
    given = scores([[2.5, -9.0], [9.0, -9.0], [2.5, -9.0]])
    pending = in_the_balance(known, 0.05, np.array([False, False, True]))
    assert pending(given).tolist() == [[True, True], [False, False], [False, False]]
