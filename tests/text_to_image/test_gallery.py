"""The counterfactual gallery of a text-to-image model: each image's own prompt, noise and guidance."""

# ruff: noqa: F401, F811
from __future__ import annotations

from pathlib import Path

from PIL import Image

from tests.text_to_image.fixtures import cli, one_thread, studio
from tests.workflow.fixtures import Cli


def prompt_in(path: str) -> str:
    with Image.open(path) as image:
        return str(image.info["guda:prompt"])


def test_prompts_noise_and_guidance_of_each_image(cli: Cli, studio: Path) -> None:
    cli("score", "q/00000.png", "q/00004.png")
    cli("sample", "-n", "2", "--out", "other", "--prompt", "a cat, thin lines", "--guidance", "3")
    cli("score", "other/00001.png", "--prompt", "a tree")
    done = cli("report", "--gallery", "--gallery-top", "2", "--html", "r.html", "--json")
    found = {row["image"]: row for row in done.document["gallery"]}
    assert len(found) == 3
    assert all(row["redrawn"] and row["same"] and len(row["without"]) == 2 for row in found.values())
    assert any(one["difference"] > 0 for row in found.values() for one in row["without"])
    for i, path in ((0, "q/00000.png"), (4, "q/00004.png")):
        assert found[path]["condition"] == prompt_in(path)
        assert (found[path]["noise"]["index"], found[path]["noise"]["guidance"]) == (i, 2.0)
    own = found["other/00001.png"]
    assert own["condition"] == "a cat, thin lines", "what it was drawn with, not what it was scored with"
    assert (own["noise"]["index"], own["noise"]["guidance"]) == (1, 3.0)
    assert "“a cat, thin lines”" in Path("r.html").read_text()


def test_a_picture_of_one_s_own_stands_beside_others_of_its_prompt(cli: Cli, studio: Path) -> None:
    cli("score", "paintings/oil/cat.png", "--prompt", "", "--prompt", "a cat, thick strokes")
    Image.new("RGB", (16, 16), "teal").save("bare.png")
    cli("score", "bare.png")
    done = cli("report", "--gallery", "--gallery-top", "1", "--html", "r.html", "--json")
    [row] = done.document["gallery"]
    assert (row["image"], row["redrawn"], row["same"]) == ("paintings/oil/cat.png", False, False)
    assert row["condition"] == "a cat, thick strokes"
    assert row["noise"]["guidance"] == 2.0
    assert "not this image" in Path("r.html").read_text()
    [note] = done.document["gallery_notes"]
    assert "no class or prompt" in note
