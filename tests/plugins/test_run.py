"""Another package's operator and method, from the command line to the report."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from tests.workflow.fixtures import GROUPS, Cli, here


def test_its_operator_unlearns(package: Path, cli: Cli, project: Path) -> None:
    group = ("unlearn", "--group", "amber", "--operator", "fade", "--json")
    assert cli(*group).document["ran"] == 4
    assert cli(*group).document["ran"] == 0
    assert cli(*group, "--set", "unlearn.fading=0.25").document["ran"] == 4
    fadings = {
        record.params["unlearn"]["fading"]
        for record in here().records("unlearn")
        if record.params["unlearn"]["operator"] == "fade"
    }
    assert fadings == {0.5, 0.25}
    assert "about" in cli("tune", "--operator", "fade", "--held-out", "2", "--dry-run").stdout


def test_its_method_scores_and_is_reported(package: Path, cli: Cli, project: Path, template: Path) -> None:
    [first, *_] = cli("score", "q", "--method", "brightness", "--json").documents
    scores = {entry["group"]: entry["score"] for entry in first["scores"]}
    query = np.asarray(Image.open(sorted(Path("q").iterdir())[0])).mean()
    for name in GROUPS:
        means = [np.asarray(Image.open(path)).mean() for path in (template / "images" / name).iterdir()]
        np.testing.assert_allclose(scores[name], np.mean([-2.0 * abs(query - mean) for mean in means]))
    [other, *_] = cli(
        "score", "q", "--method", "brightness", "--set", "attribution.contrast=4", "--json"
    ).documents
    np.testing.assert_allclose(
        {entry["group"]: entry["score"] for entry in other["scores"]}[GROUPS[0]], 2.0 * scores[GROUPS[0]]
    )
    cli("report", "--method", "brightness", "--html", "page.html")
    assert "mean brightness was compared" in Path("page.html").read_text()
