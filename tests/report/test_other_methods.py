"""Reports of methods that make no counterfactual model: no Monte-Carlo error, single training images."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import numpy as np
import pytest

from guda_cli.report.answers import formats, terminal
from guda_cli.report.answers import page as pages
from guda_cli.report.answers.content import GroupScore, InstanceScore, QueryResult, ReportModel
from guda_cli.report.answers.image_rows import ImageRows
from guda_cli.report.pieces.markup import bar, span
from tests.report.builders import GROUPS, HOSTILE, query, report
from tests.report.test_html import Page, without_script
from tests.report.test_tables import schema, validate
from tests.report.test_terminal import shown

PIXELS = np.full((3, 8, 8), 200, np.uint8)


def answered(name: str, **changes: Any) -> QueryResult:
    scores = tuple(GroupScore(g, 0.9 - 0.1 * i) for i, g in enumerate(GROUPS))
    instances = (
        InstanceScore("train-7.png", ("cat", "dog"), 0.99, PIXELS),
        InstanceScore(HOSTILE, ("<b>&ship",), 0.875),
    )
    return query(name, {}, scores=scores, answer=None, **{"instances": instances, **changes})


def similarity(**changes: Any) -> ReportModel:
    fields: dict[str, Any] = {
        "method": "similarity",
        "weighting": "",
        "weighting_unit": "similarity score",
        "grid": "",
        "timesteps": 0,
        "draws": 0,
        "null": None,
        "checks": (),
        "costs": (),
        "counterfactual": False,
        "sentence": "the training images were compared with the query by their embeddings",
    }
    return report((answered("a.png"), answered("b.png")), **{**fields, **changes})


def test_page_says_nothing_of_counterfactuals() -> None:
    text = pages.render(similarity())
    said = " ".join(Page(text).words)
    body = said.split("Provenance")[0]
    for word in (
        "ELBO",
        "nats",
        "Monte-Carlo",
        "unlearned",
        "Weighting",
        "Noise draws",
        "±0",
        "explains the image",
    ):
        assert word not in body
    for part in ("similarity score", "compared with the query by their embeddings", "Higher: by this method"):
        assert part in said
    assert "--against logo" in said
    assert 'class="error"' not in text.split('id="means"')[0]


def test_page_shows_the_training_images() -> None:
    text = without_script(pages.render(similarity()))
    page = Page(text)
    assert text.count('<ol class="instances">') == 2
    assert sum(attrs.get("class") == "instance crisp" for tag, attrs in page.tags if tag == "img") == 2
    assert [a["alt"] for t, a in page.tags if t == "img" and a.get("class") == "instance crisp"] == [
        "training image train-7.png"
    ] * 2
    said = "".join(page.words)
    for part in ("train-7.png", "cat, dog", "+0.990", "+0.875"):
        assert said.count(part) >= 2
    assert not any(tag in {"script", "b"} for tag, _ in page.tags)
    assert '<ol class="instances">' not in pages.render(report())


def test_bars_without_errors() -> None:
    one = GroupScore("cat", 0.5)
    assert 'class="error"' not in bar(one, span([one]))
    assert span([one]).right == 0.5


@pytest.mark.parametrize("width", [80, 120])
def test_terminal(width: int) -> None:
    text = shown(terminal.render(similarity(), 2, width), width)
    for word in ("ELBO", "s.e.\n", "removed", "weighting"):
        assert word not in text.split("Mean over")[0]
    assert "similarity score" in text
    table = shown(
        [terminal.query_table(answered("a.png"), 2, "similarity score", counterfactual=False)], width
    )
    assert "95 % interval" not in table
    assert "Higher" not in table
    assert "similarity score" in table
    assert "train-7.png" in table
    assert "cat, dog" in table
    assert "0.875" in table


def test_some_errors_and_some_not() -> None:
    mixed = query(
        "x", {}, scores=(GroupScore("cat", 1.0, 0.1, 0.8, 1.2), GroupScore("dog", 0.5)), answer=None
    )
    table = shown([terminal.query_table(mixed, 2, "nats")], 80)
    (dog,) = [line for line in table.splitlines() if "dog" in line]
    assert dog.count("–") == 2
    Page(pages.render(report((mixed, mixed))))


def test_a_row_without_verdict_and_error() -> None:
    one = answered("a.png")
    rows = ImageRows(["a.png"], ["cat", "dog"], [one], 120, 2, counterfactual=False)
    assert rows.row(one).plain.split() == ["a.png", "cat", "+0.900", "dog", "+0.800"]
    assert next(rows.heads()).plain.split() == ["image", "group", "score", "then"]


def test_csv_leaves_errors_empty() -> None:
    rows = list(csv.DictReader(io.StringIO(formats.to_csv(similarity()))))
    assert len(rows) == 6
    assert {row[k] for row in rows for k in ("se", "low", "high", "z")} == {""}
    assert float(rows[0]["score"]) == 0.9


def test_documents_fit_their_schemas() -> None:
    document = json.loads(json.dumps(formats.to_json(similarity()), allow_nan=False))
    validate(document, schema("report"), schema("report"))
    assert document["queries"][0]["instances"][0] == {
        "rank": 1,
        "image": "train-7.png",
        "groups": ["cat", "dog"],
        "score": 0.99,
    }
    assert document["sign"].startswith("Higher")
    assert "instances" not in formats.to_json(report())["queries"][0]
    line = formats.score_document(
        answered("a.png"), counterfactual=False, method="similarity", weighting="", unit="similarity score"
    )
    validate(json.loads(json.dumps(line, allow_nan=False)), schema("score"), schema("score"))
    assert line["sign"].startswith("Higher")
    assert len(line["instances"]) == 2
    assert "counterfactual" not in line
