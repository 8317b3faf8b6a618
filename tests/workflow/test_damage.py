"""A flipped bit in a stored object is found, said, and made good."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.workflow.fixtures import (
    Cli,
    flip,
    here,
    record,
    scores,
)


def full() -> str:
    return record("train").outputs["weights"]


def delta() -> str:
    return record("unlearn", "blue").outputs["weights"]


def dataset() -> str:
    return record("dataset").outputs["data"]


def schedule() -> str:
    return record("train").outputs["betas"]


def samples() -> str:
    return record("sample").outputs["images"]


def segment() -> str:
    store = here()
    folder = store.root / "tables" / store.tables()[0]["table"]
    [path] = [path for path in folder.iterdir() if path.name != "table.json"]
    return path.stem


KINDS: dict[str, tuple[Callable[[], str], str]] = {
    "full model": (full, "full model"),
    "unlearned model": (delta, "unlearn blue"),
    "dataset": (dataset, "dataset"),
    "segment": (segment, ""),
    "schedule": (schedule, "full model"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_verify_finds_and_names_it(cli: Cli, project: Path, kind: str) -> None:
    digest = KINDS[kind][0]()
    makers = [r.key for r in here().records() if digest in r.outputs.values()]
    path = flip(here(), digest)
    done = cli("store", "verify", code=5)
    assert digest[:10] in done.stdout
    assert all(key[:10] in done.stdout for key in makers)
    assert not path.exists()
    assert any(digest in p.name for p in (project / ".guda" / "quarantine").iterdir())


@pytest.mark.parametrize("kind", ["full model", "unlearned model", "schedule"])
def test_scoring_makes_a_damaged_model_again(cli: Cli, project: Path, kind: str) -> None:
    new = ["score", "q/00000.png", "q/00001.png", "--json"]
    undamaged = scores(cli(*new).documents)
    for table in (project / ".guda" / "tables").iterdir():
        for path in table.iterdir():
            path.unlink()
    digest = KINDS[kind][0]()
    flip(here(), digest)
    done = cli(*new)
    assert "quarantined" in done.stderr
    assert f"rebuilding {KINDS[kind][1]}" in done.stderr
    assert scores(done.documents) == undamaged
    assert here().has_blob(digest)
    assert "quarantined" not in cli(*new).stderr
    cli("store", "verify")


def test_scoring_makes_a_damaged_segment_again(cli: Cli, project: Path) -> None:
    undamaged = scores(cli("score", "q", "--json").documents)
    flip(here(), segment())
    done = cli("score", "q", "--json")
    assert "quarantined" in done.stderr
    assert "64 network forwards, 256 reused" in done.stderr
    assert scores(done.documents) == undamaged
    assert "no model was run" in cli("score", "q").stderr
    cli("store", "verify")


def test_a_report_leaves_out_what_a_damaged_segment_held(cli: Cli, project: Path) -> None:
    flip(here(), segment())
    done = cli("report", code=4)
    assert "quarantined" in done.stderr
    assert "guda score" in done.stderr


@pytest.mark.parametrize("kind", ["full model", "dataset"])
def test_unlearning_notices_and_gives_the_same_model(cli: Cli, project: Path, kind: str) -> None:
    digest = KINDS[kind][0]()
    again = record("unlearn", "blue")
    here().forget(again.key)
    flip(here(), digest)
    done = cli("unlearn", "--group", "blue", "--no-null", "--json")
    assert "quarantined" in done.stderr
    assert "rebuilding full model" in done.stderr or "reading the dataset again" in done.stderr
    assert done.document["models"][0]["weights"] == again.outputs["weights"]
    assert here().has_blob(digest)
    cli("store", "verify")


def test_the_pictures_of_the_data_are_read_again_for_a_score(cli: Cli, project: Path) -> None:
    undamaged = cli("score", "q", "--json")
    flip(here(), dataset())
    done = cli("score", "q", "--json")
    assert "reading the dataset again" in done.stderr
    assert done.stdout == undamaged.stdout
    cli("store", "verify")


def test_damaged_samples_are_drawn_again(cli: Cli, project: Path) -> None:
    before = (project / "q" / "00000.png").read_bytes()
    flip(here(), samples())
    done = cli("sample", "-n", 4, "--out", "again")
    assert "quarantined" in done.stderr
    assert (project / "again" / "00000.png").read_bytes() == before


def test_sampling_makes_a_damaged_model_again(cli: Cli, project: Path) -> None:
    flip(here(), full())
    done = cli("sample", "-n", 2, "--out", "again")
    assert "rebuilding full model" in done.stderr
    assert (project / "again" / "00001.png").read_bytes() == (project / "q" / "00001.png").read_bytes()


def test_after_verify_the_next_step_is_named(cli: Cli, project: Path) -> None:
    """Once quarantined, the full model is missing as if it had never been: the same command makes it."""
    digest = full()
    flip(here(), digest)
    assert "guda train" in cli("store", "verify", code=5).stdout + cli("score", "q", code=4).stderr
    cli("train")
    assert here().has_blob(digest)
    assert "no model was run" in cli("score", "q").stderr
