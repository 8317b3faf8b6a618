"""The shipped templates of families: each trains, unlearns and scores its family's tiny pipeline."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from guda_cli.settings import lookup
from tests.families import tiny_pipelines
from tests.text_to_image.fixtures import cli, one_thread, paint
from tests.workflow.fixtures import Cli

__all__ = ["cli", "one_thread"]
TEMPLATES = {"sdxl-lora": "sdxl", "flux-lora": "flux", "qwen-image-lora": "qwen-image"}
SMALL = [
    item
    for value in (
        "data.size=16", "train.steps=2", "train.params=lora:2", "unlearn.steps=2", "score.timesteps=2",
        "score.draws=1", "score.calibration=0",
    )
    for item in ("--set", value)
]  # fmt: skip


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_thread: None) -> Path:
    """Pictures by artist, whose captions end in a trigger word."""
    artists = paint(tmp_path / "artists")
    rows = [json.loads(line) for line in (artists / "metadata.jsonl").read_text().splitlines()]
    for row in rows:
        artist, thing = Path(row["file_name"]).parts
        row["prompt"] = f"a {Path(thing).stem}, in the style of {artist}style"
    (artists / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_template_works_with_its_family(name: str, work: Path, cli: Cli) -> None:
    tiny_pipelines.save(TEMPLATES[name], work)
    Path("my.yaml").write_text(cli("recipes", "show", name).stdout)
    done = cli("train", "my.yaml", "--from", "pipeline", *SMALL)
    assert f"pipeline is of the family {TEMPLATES[name]}" in done.stderr
    assert cli("unlearn", "--group", "ink", "--group", "oil", "--json").document["ran"] == 2
    [found] = cli("score", "artists/ink/cat.png", "--json").documents
    assert {entry["group"] for entry in found["scores"]} == {"ink", "oil"}
    assert "model.base" not in cli("status").stdout


def test_another_familys_pipeline_is_refused_by_its_name(work: Path, cli: Cli) -> None:
    tiny_pipelines.save("sd3", work)
    done = cli("train", "flux-lora", "--from", "pipeline", *SMALL, code=3)
    assert "pipeline is of the family sd3" in done.stderr
    assert "--set model.family=sd3" in done.stderr


def test_paintings_has_the_family_of_the_pipeline(work: Path) -> None:
    from guda_cli.workflow.models.take_over import Source

    recipe, _ = lookup.load("paintings")
    for name in ("flux", "sd3"):
        folder = tiny_pipelines.save(name, work / name)
        assert Source(str(folder)).recipe_for(recipe).model.family == name
