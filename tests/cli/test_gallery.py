"""The counterfactual gallery as the real command makes it."""

# ruff: noqa: F401, F811
from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from guda_cli.attribution.picture_changes import levels
from guda_cli.workflow.models import drawing
from tests.cli.test_class_conditional import plain, work
from tests.workflow import processes
from tests.workflow.fixtures import QUERIES, Cli, cli, flip, here, one_thread, project, record, template

GALLERY = ["report", "--gallery", "--html", "r.html", "--json"]


def drawings() -> dict[str, dict[str, Any]]:
    """Parameters of every stored drawing of the gallery by its key."""
    return {r.key: dict(r.params) for r in here().records("sample") if "indices" in r.params}


def pixels(path: Path | str) -> np.ndarray[Any, Any]:
    with Image.open(path) as image:
        return np.asarray(image)


def no_torch(*args: str) -> list[dict[str, Any]]:
    """The documents of a command run in a process of its own, which must not import torch."""
    script = (
        "import sys, json; from guda_cli import app; code = app.run(json.loads(sys.argv[1]))\n"
        "assert not {'torch', 'diffusers'} & set(sys.modules), 'torch was imported'; sys.exit(code)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, json.dumps(args)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_the_gallery_once_drawn_costs_nothing(guda, documents, project: Path) -> None:
    # `guda sample` draws in a process that starts from nothing in test_end_to_end.py
    forked = os.name == "posix"
    done = processes.run(project, *GALLERY) if forked else guda(*GALLERY, code=0, timeout=900)
    [first] = documents(done.stdout)
    assert [r["image"] for r in first["gallery"]] == [q["image"] for q in first["queries"]]
    for shown, query in zip(first["gallery"], first["queries"], strict=True):
        assert shown["redrawn"]
        assert shown["same"]
        assert [w["group"] for w in shown["without"]] == [s["group"] for s in query["scores"][:3]]
        assert [w["score"] for w in shown["without"]] == [s["score"] for s in query["scores"][:3]]
    assert any(w["difference"] > 0 for shown in first["gallery"] for w in shown["without"])
    made = drawings()
    assert len(made) == QUERIES * 4
    [again] = no_torch(*GALLERY)
    assert again["gallery"] == first["gallery"]
    assert drawings() == made
    page = Path("r.html").read_text()
    assert page.count("drawn again: same") == QUERIES
    [bare] = no_torch("report", "--json", "--html", "bare.html")
    assert "gallery" not in bare
    assert 'id="gallery"' not in Path("bare.html").read_text()


def test_fewer_images_and_groups(cli: Cli, project: Path) -> None:
    found = cli("report", "--gallery-images", 2, "--gallery-top", 1, "--json").document["gallery"]
    assert [len(row["without"]) for row in found] == [1, 1]
    assert len(drawings()) == 4
    cli("report", "--gallery-images", 3, "--gallery-top", 1, "--json")
    assert len(drawings()) == 6, "what was drawn before is not drawn again"


def test_pictures_are_those_of_guda_sample(cli: Cli, project: Path) -> None:
    """The model without a group draws image i of the seed as `guda sample --without` does."""
    found = cli("report", "--gallery", "--gallery-top", 1, "--json").document["gallery"]
    for i, row in enumerate(found):
        assert row["noise"] == {"seed": 0, "index": i, "sampler": "ddim", "steps": 5, "guidance": 1.0}
        [without] = row["without"]
        group = without["group"]
        cli("sample", "-n", QUERIES, "--without", group, "--out", f"w-{group}")
        other = pixels(f"w-{group}/without-{group}-{i:05d}.png")
        assert levels(pixels(row["image"]), other) == pytest.approx(without["difference"], abs=0.1)


def test_settings_of_the_image_not_of_the_recipe(cli: Cli, project: Path) -> None:
    cli("sample", "-n", 2, "--out", "other", "--seed", 9, "--steps", 3, "--sampler", "ddpm")
    cli("score", "other/00001.png")
    found = {r["image"]: r for r in cli("report", "--gallery", "--json").document["gallery"]}
    row = found["other/00001.png"]
    assert row["noise"] == {"seed": 9, "index": 1, "sampler": "ddpm", "steps": 3, "guidance": 1.0}
    assert row["same"]


def test_images_of_unknown_origin_are_left_out(cli: Cli, project: Path) -> None:
    cli("score", "--", plain_copy("q/00000.png", "a-user's.png", 3))
    cli("sample", "-n", 1, "--out", "w", "--without", "blue")
    cli("score", "w")
    done = cli("report", "--gallery", "--json")
    assert len(done.document["gallery"]) == QUERIES
    assert len(done.document["queries"]) == QUERIES + 2
    assert "nothing says how guda sample drew it" in done.stderr
    assert done.document["gallery_notes"] == [
        "1 image is left out: nothing says how guda sample drew it",
        "1 image is left out: another model than the current full one drew it",
    ]
    done = cli("report", "--gallery-images", 2, "--gallery-top", 1, "--json")
    assert done.document["gallery_notes"] == [
        "1 image is left out before the last one shown: nothing says how guda sample drew it"
    ]


def plain_copy(source: str, out: str, change: int) -> str:
    """The image without its text, `change` levels off."""
    Image.fromarray((pixels(source) // 2 + change).astype(np.uint8)).save(out)
    return out


def test_a_copy_without_text_keeps_its_origin(cli: Cli, project: Path) -> None:
    Image.fromarray(pixels("q/00002.png")).save("copy.png")
    cli("score", "copy.png")
    found = {r["image"]: r for r in cli("report", "--gallery-top", 1, "--json").document["gallery"]}
    assert found["copy.png"]["same"], "its pixels are those of q/00002.png"


def test_an_origin_that_is_not_true_is_found_out(cli: Cli, project: Path) -> None:
    with Image.open("q/00000.png") as image:
        origin = image.info["guda:sample"]
    text = PngInfo()
    text.add_text("guda:sample", origin)
    Image.fromarray(255 - pixels("q/00003.png")).save("forged.png", pnginfo=text)
    cli("score", "forged.png")
    args = ["--gallery-images", 1, "--gallery-top", 1, "--html", "r.html", "--json"]
    [row] = cli("report", *args).document["gallery"]
    assert row["image"] == "forged.png"
    assert row["redrawn"]
    assert not row["same"]
    assert row["difference"] > 10
    assert "does not draw this image again" in Path("r.html").read_text()


def test_a_damaged_picture_is_drawn_again(cli: Cli, project: Path) -> None:
    first = cli("report", "--gallery", "--json").document["gallery"]
    flip(here(), record("sample").outputs["images"])
    done = cli("report", "--gallery", "--json")
    assert done.document["gallery"] == first
    assert "rebuilding" in done.stderr


class TestConditions:
    def test_a_class_is_drawn_as_it_was(self, cli: Cli, work: Path) -> None:
        cli("score", "q", "--group", "blue")
        found = cli("report", "--gallery", "--json").document["gallery"]
        assert [row["condition"] for row in found] == ["amber", "blue", "cyan", "dune", "amber", "blue"]
        assert all(row["same"] and row["redrawn"] for row in found)
        assert [w["group"] for row in found for w in row["without"]] == ["blue"] * 6

    def test_another_picture_of_the_class(self, cli: Cli, work: Path) -> None:
        """Of an image that guda did not draw, and from the same noise each time."""
        bare = plain("q/00001-blue.png", "bare.png")
        cli("score", bare, "--class", "cyan", "--group", "blue")
        cli("score", plain("q/00002-cyan.png", "none.png"), "--group", "blue")
        done = cli("report", "--gallery", "--json", "--html", "r.html")
        [row] = done.document["gallery"]
        assert (row["image"], row["condition"], row["redrawn"], row["same"]) == (bare, "cyan", False, False)
        assert "not this image" in Path("r.html").read_text()
        assert "no class or prompt" in done.document["gallery_notes"][0]
        assert cli("report", "--gallery", "--json").document["gallery"] == [row]

    def test_chosen_images_are_rows_of_the_whole(self, cli: Cli, work: Path) -> None:
        from guda_cli.session import Options, Session
        from guda_cli.workflow.project.project import Project

        session = Session(Options(quiet=True))
        loaded = Project(session.recipe(), session.open_store(), session.console)
        full = loaded.require_full()
        names = ("amber", "blue", "cyan", "dune", "amber", "blue")
        whole = drawing.Settings(6, "ddim", 5, 0, names)
        some = drawing.Settings(2, "ddim", 5, 0, (names[4], names[1]), indices=(4, 1))
        assert "indices" not in whole.key
        assert some.key["indices"] == [4, 1]
        found = [
            drawing.pixels_of(loaded, drawing.sample(loaded, full, full, settings, "cpu"))
            for settings in (whole, some)
        ]
        np.testing.assert_allclose(found[1], found[0][[4, 1]], atol=1)
        assert not np.array_equal(found[0][4], found[0][1])


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--gallery"], "--html FILE"),
        (["--gallery", "--json", "--against", "logo"], "does not go with --against"),
        (["--gallery", "--json", "--method", "similarity"], "models without the groups"),
        (["--gallery-top", "0", "--json"], "greater than or equal to 1"),
    ],
)
def test_what_cannot_be(cli: Cli, project: Path, args: list[str], said: str) -> None:
    before = drawings()
    done = cli("report", *args, code=2)
    assert said in done.stderr
    assert drawings() == before
