"""What decides a text-to-image result is in its key, and nothing else is."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.latent.conftest import save
from tests.text_to_image.fixtures import GROUPS, RECIPE, cli, one_thread, paint, prompt_of, studio
from tests.workflow.fixtures import Cli, here, record

__all__ = ["cli", "one_thread", "studio"]


def made(operation: str) -> int:
    return len(list(here().records(operation)))


def test_how_captions_are_taken_apart_decides_the_text_encoder(studio: Path, cli: Cli) -> None:
    cli("train", "studio.yaml", "--set", 'text.separator=", "')
    assert made("text-encoder") == 1
    cli("train", "studio.yaml", "--set", "text.separator=;")
    assert made("text-encoder") == 2


def test_an_encoder_for_anchors_is_known_by_its_files(studio: Path, cli: Cli) -> None:
    save(studio / "pipe")
    pipe = studio / "pipe"
    shutil.copytree(pipe / "text_encoder", studio / "clip")
    shutil.copytree(pipe / "tokenizer", studio / "clip", dirs_exist_ok=True)
    (studio / "studio.yaml").write_text(RECIPE.replace("params:", "anchor_encoder: clip, params:"))
    cli("train", "studio.yaml")
    cli("unlearn", "--group", "oil", "--no-null")
    before = made("unlearn")
    (studio / "clip").rename(studio / "moved")
    (studio / "studio.yaml").write_text(RECIPE.replace("params:", "anchor_encoder: moved, params:"))
    cli("train", "studio.yaml")
    cli("unlearn", "--group", "oil", "--no-null")
    assert made("unlearn") == before
    done = cli("unlearn", "--group", "oil", "--set", "unlearn.anchor_encoder=clip", code=2)
    assert "anchor_encoder" in done.stderr
    cli(
        "unlearn",
        "--group",
        "oil",
        "--no-null",
        "--operator",
        "finetune",
        "--set",
        "unlearn.anchor_encoder=clip",
    )


def test_the_kind_of_latents_is_in_the_key_with_a_registered_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_thread: None, cli: Cli
) -> None:
    monkeypatch.chdir(tmp_path)
    paint(tmp_path / "paintings")
    save(tmp_path / "pipe")
    Path("studio.yaml").write_text(RECIPE)
    cli("train", "studio.yaml", "--from", "pipe", "--as-is")
    for ran, extra in ((1, ()), (0, ()), (1, ("--set", "latent.posterior=sample"))):
        done = cli("unlearn", "--group", "oil", "--no-null", *extra, "--json")
        assert done.documents[0]["ran"] == ran, extra


@pytest.mark.parametrize("method", ["das", "mucs"])
def test_rivals_too_average_over_prompts(studio: Path, cli: Cli, method: str) -> None:
    texts = [prompt_of("ink", "cat"), prompt_of("oil", "dog")]
    how = ("--method", method, "--instances", "99")

    def found(*prompts: str) -> np.ndarray:
        told = [part for text in prompts for part in ("--prompt", text)]
        [document] = cli("score", "q/00000.png", *told, *how, "--json").documents
        listed = {entry["image"]: entry["score"] for entry in document["instances"]}
        return np.array([listed[name] for name in sorted(listed)])

    one, two, both = found(texts[0]), found(texts[1]), found(*texts)
    assert len(one) == 3 * len(GROUPS)
    assert not np.allclose(one, two, rtol=1e-3)
    np.testing.assert_allclose(both, (one + two) / 2, rtol=1e-4, atol=1e-6)


def test_esd_needs_an_empty_prompt_that_was_trained(studio: Path, cli: Cli) -> None:
    cli("train", "studio.yaml", "--set", "train.prompt_dropout=0")
    config = json.loads(here().read_bytes(list(here().records("train"))[-1].outputs["config"]))
    assert config["unet"]["null_class"] is False
    done = cli("unlearn", "--group", "oil", "--operator", "esd", code=3)
    assert "prompt_dropout" in done.stderr
    cli("unlearn", "--group", "oil", "--no-null")
    assert record("unlearn", "oil")
