"""A report foretells what retraining would say where the store has retrained models to learn it from."""

from __future__ import annotations

from pathlib import Path

import pytest

from guda_cli.attribution import retraining
from guda_cli.workflow.reporting import retrained
from tests.workflow.fixtures import GROUPS, Cli


def test_from_the_oracle_of_the_store(cli: Cli, bench: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in (2, 3):
        cli("score", "q", "--method", "logo", "--seeds", seed)
    cli("score", "q")
    bare = cli("report", "--json").document
    assert bare["retraining"] is None, "of four images nothing can be learnt"
    assert bare["queries"][0]["scores"][0]["retrained"] is None
    for module in (retraining, retrained):
        monkeypatch.setattr(module, "LEAST_IMAGES", 4)
    found = cli("report", "--json", "--html", "r.html").document
    line = found["retraining"]
    assert (line["groups"], line["images"], line["seeds"]) == (len(GROUPS), 4, 2)
    for query in found["queries"]:
        for entry in query["scores"]:
            foretold = line["shift"] + line["slope"] * entry["score"]
            assert entry["retrained"] == pytest.approx(foretold, rel=1e-6, abs=1e-9)
            assert entry["retrained_low"] < entry["retrained"] < entry["retrained_high"]
    assert "one more retraining would say" in Path("r.html").read_text()
    assert cli("report", "--method", "logo", "--json").document["retraining"] is None
