"""Verdicts from the command line: calibrated once, kept in the store, told in every output."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from guda_cli.workflow.scoring.strangers import FORWARDS
from tests.workflow.fixtures import GROUPS, IMAGES, MODELS, QUERIES, ROWS, Cli, flip, here, save

JUDGED = ["--set", "score.calibration=44"]
LOOKED = len(GROUPS) * IMAGES * FORWARDS  # all training images, calibrated on or not
CALIBRATED = 44 * MODELS * ROWS + LOOKED


def test_they_are_calibrated_once_for_all_images(cli: Cli, project: Path) -> None:
    planned = cli("score", "q", "--dry-run", "--json", *JUDGED).document["steps"][-3:]
    assert [(step["what"], step["forwards"]) for step in planned] == [
        ("calibrating the verdicts", CALIBRATED - LOOKED),
        ("look of the training images", LOOKED),
        ("comparing images with them", QUERIES * FORWARDS),
    ]
    done = cli("score", "q", "--json", *JUDGED, "--set", "score.most_draws=2")
    assert f"({CALIBRATED:,} more forwards calibrated the verdicts, once for all images)" in done.stderr
    for document in done.documents:
        assert isinstance(document["answer"], list)
        assert isinstance(document["unlike"], bool)
        assert document["answer"] == [s["group"] for s in document["scores"] if s["stands_out"]]
        assert 0 <= document["confidence"] <= 1
        for entry in document["scores"]:
            assert 1 / 45 <= entry["p"] <= 1
            assert entry["stands_out"] == (entry["p"] <= 0.05 and not document["unlike"])
    again = cli("score", "q", "--json", *JUDGED, "--set", "score.most_draws=2")
    assert "every term was in the store, no model was run" in again.stderr
    assert again.documents == done.documents
    planned = cli("score", "q", "--dry-run", "--json", *JUDGED).document["steps"][-3:]
    assert [(step["status"], step["forwards"]) for step in planned] == 3 * [("cached", 0)]


def test_the_report_says_how_often_they_are_wrong(cli: Cli, project: Path) -> None:
    scored = cli("score", "q", "--json", *JUDGED).documents
    found = cli("report", "--json", "--html", "r.html", *JUDGED).document
    assert found["null"]["images"] == 44
    assert 0 <= found["null"]["wrong_group"] <= 0.2
    assert [q["answer"] for q in found["queries"]] == [d["answer"] for d in scored]
    assert [q["scores"] for q in found["queries"]] == [d["scores"] for d in scored]  # with the same draws
    assert "had a wrong group named" in Path("r.html").read_text()
    bare = cli("report", "--json").document
    assert bare["null"] is None
    assert any("nothing says whether a group stands out" in text for text in bare["warnings"])


def test_more_draws_are_taken_where_asked_and_kept(cli: Cli, project: Path) -> None:
    [one] = cli("score", "q/00000.png", "--until", "1e-9", "--json").documents
    drawn = {entry["group"]: entry["draws"] for entry in one["scores"]}
    assert sorted(drawn.values()) == [2] * (len(GROUPS) - 1) + [64]  # only the first, up to the most
    assert one["scores"][0]["draws"] == 64
    again = cli("score", "q/00000.png", "--until", "1e-9", "--json")
    assert "every term was in the store" in again.stderr
    assert again.documents == [one]
    report = {q["image"]: q for q in cli("report", "--json").document["queries"]}
    assert report["q/00000.png"]["scores"] == one["scores"]
    assert len(report) == QUERIES


def test_until_is_checked_before_any_work(cli: Cli, project: Path) -> None:
    done = cli("score", "q", "--until", "soon", code=2)
    assert "neither a standard error nor a share" in done.stderr


def test_calibration_images_are_in_the_store_with_their_groups(cli: Cli, project: Path) -> None:
    cli("score", "q", *JUDGED)
    [record] = here().records("calibration")
    groups = json.loads(here().read_bytes(record.outputs["groups"]))
    assert len(groups) == 44
    assert {name for own in groups for name in own} == set(GROUPS)


def test_images_that_cannot_be_read_cost_nothing(cli: Cli, project: Path) -> None:
    Path("broken.png").write_bytes(b"no image")
    before = {record.key for record in here().records()}, {t["table"] for t in here().tables()}
    done = cli("score", "broken.png", "--seed", 9, *JUDGED, code=3)
    assert "1 of 1 images could not be read" in done.stderr
    assert ({record.key for record in here().records()}, {t["table"] for t in here().tables()}) == before


def test_an_image_of_another_kind_gets_no_verdict(cli: Cli, template: Path, project: Path) -> None:
    """Flat white: no training image is bright in more than one quarter."""
    save(Path("white.png"), np.full((8, 8), 255))
    own = str(template / "images" / GROUPS[0] / "00.png")
    white, one = cli("score", "white.png", own, "--json", *JUDGED).documents
    assert (white["unlike"], white["answer"], one["unlike"]) == (True, [], False)
    assert not any(entry["stands_out"] for entry in white["scores"])
    shown = " ".join(cli("score", "white.png", *JUDGED).stdout.split())
    assert "Unlike the training data, so no group is named." in shown
    report = cli("report", "--json", *JUDGED).document
    told = {q["image"]: q.get("unlike") for q in report["queries"]}
    assert told.pop("white.png") is True
    assert told.pop(own) is False
    assert set(told.values()) == {None}, "the others were scored without verdicts, and are not known"
    assert "4 images were scored without a verdict (guda score IMAGE gives one)" in report["warnings"]


def test_the_look_of_the_training_images_is_made_again_where_damaged(cli: Cli, project: Path) -> None:
    """Without it there are no verdicts: so in stores of versions that told strangers otherwise."""
    first = cli("score", "q", "--json", *JUDGED)
    [record] = here().records("familiar")
    flip(here(), record.outputs["space"])
    assert "try: guda score IMAGE\n" in cli("report", *JUDGED, code=5).stderr
    found = cli("report", "--json", *JUDGED).document
    assert found["null"] is None
    assert any("the verdicts are not calibrated (guda score IMAGE)" in text for text in found["warnings"])
    again = cli("score", "q", "--json", *JUDGED)
    assert f"({LOOKED:,} more forwards calibrated the verdicts, once for all images)" in again.stderr
    assert again.documents == first.documents
    cli("store", "verify")
