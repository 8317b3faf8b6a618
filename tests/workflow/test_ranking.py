"""By what groups are ranked, and that no group is first because it is large."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from guda_cli.attribution.calibration import Calibration
from guda_cli.errors import UsageError
from guda_cli.workflow.keys.removal import Removal
from guda_cli.workflow.scoring.ranking import PER_IMAGE, SCORE, Ranking, Z, choose
from guda_cli.workflow.scoring.refining import Scores
from tests.workflow.fixtures import RECIPE, Cli, draw

LARGE, SMALL = Removal(("large",)), Removal(("small",))
COUNTS = {"large": 100, "small": 10}


def scores(value: np.ndarray) -> Scores:
    return Scores(value, np.ones_like(value), np.full(value.shape, 1e9), np.full(value.shape, 2))


def test_auto_goes_by_the_sizes() -> None:
    assert choose("auto", [LARGE, SMALL], COUNTS, calibrated=True).kind == Z
    assert choose("auto", [LARGE, SMALL], COUNTS, calibrated=False).kind == SCORE
    assert choose("auto", [LARGE, SMALL], {"large": 20, "small": 10}, calibrated=True).kind == SCORE
    assert choose("per-image", [LARGE, SMALL], COUNTS, calibrated=False) == Ranking(PER_IMAGE, (100, 10))
    with pytest.raises(UsageError, match="calibrated"):
        choose("z", [LARGE, SMALL], COUNTS, calibrated=False)
    with pytest.raises(UsageError, match="unknown ranking"):
        choose("size", [LARGE, SMALL], COUNTS, calibrated=True)


def test_values_by_hand() -> None:
    """Others' images score 1 and 3 of the large group, 0 and 2 of the small: deciles 1.6 apart."""
    known = Calibration(
        np.array([[9.0, 0.0], [9.0, 2.0], [1.0, 9.0], [3.0, 9.0]]),
        np.array([[True, False], [True, False], [False, True], [False, True]]),
        np.zeros(4, dtype=bool),
    )
    given = scores(np.array([[4.0, 3.0]]))
    by_z = Ranking(Z, (100, 10)).values(given, known)
    np.testing.assert_allclose(by_z.value, np.array([[2.0, 2.0]]) / (1.6 / 2.563))
    np.testing.assert_allclose(by_z.se, np.array([[1.0, 1.0]]) / (1.6 / 2.563))
    each = Ranking(PER_IMAGE, (100, 10)).values(given, known)
    np.testing.assert_allclose(each.value, [[0.04, 0.3]])
    assert Ranking(SCORE, (100, 10)).values(given, known) is given


def test_a_group_ten_times_as_large_is_first_for_its_own_images_only() -> None:
    """Each scores by its size on whatever image, and as much more on its own as it is large."""
    rng = np.random.default_rng(0)
    size, members = np.array([10.0, 1.0]), np.eye(2, dtype=bool)[np.arange(800) % 2]
    value = size * (1.0 + rng.normal(size=(800, 2)) + 5.0 * members)
    known = Calibration(value[:400], members[:400], np.zeros(400, dtype=bool))
    queries, own = scores(value[400:]), members[400:].argmax(axis=1)
    assert (queries.value.argmax(axis=1) == own)[own == 1].mean() < 0.5
    by_z = choose("auto", [LARGE, SMALL], COUNTS, calibrated=True).values(queries, known)
    for group in (0, 1):
        assert (by_z.value.argmax(axis=1) == own)[own == group].mean() > 0.97


def test_from_the_command_line(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(RECIPE)
    draw(tmp_path / "images", ("amber", "blue"), images=4)
    draw(tmp_path / "more", ("cyan",), images=40)
    (tmp_path / "more" / "cyan").rename(tmp_path / "images" / "cyan")
    cli("train", "tiny.yaml", "--set", "train.steps=4")
    cli("unlearn", "--all", "--no-null")
    judged = ["--set", "score.calibration=44", "--json"]
    one = "images/blue/00.png"
    by_z = cli("score", one, *judged).document
    assert by_z["rank"] == "z"
    assert [s["z"] for s in by_z["scores"]] == sorted((s["z"] for s in by_z["scores"]), reverse=True)
    by_score = cli("score", one, *judged, "--rank", "score").document
    assert [s["score"] for s in by_score["scores"]] == sorted(
        (s["score"] for s in by_z["scores"]), reverse=True
    )
    assert cli("score", one, "--json").document["rank"] == "score"
    assert "ranked by z" in cli("score", one, "--set", "score.calibration=44").stdout
    assert "needs verdicts" in cli("score", one, "--rank", "z", code=2).stderr
    report = cli("report", *judged).document["queries"][0]
    assert [s["group"] for s in report["scores"]] == [s["group"] for s in by_z["scores"]]
