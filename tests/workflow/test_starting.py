"""From a folder of images to a recipe, and through everything with it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from guda_cli.data.survey import Survey
from guda_cli.sections import DataSpec, Recipe, to_dict
from guda_cli.settings import lookup
from guda_cli.store import Store
from guda_cli.workflow.starting.proposal import FLOOR, Speed, multiple, propose, remarks, sizes
from guda_cli.workflow.starting.written import text_of
from tests.workflow.fixtures import RECIPE, Cli, draw

Documents = Callable[[str], list[dict[str, Any]]]
QUICK = Speed(1e-6, 1e-6)


def seen(counts: dict[str, int], side: int = 64, **more: object) -> Survey:
    spec = DataSpec(path="images", size=32)
    images = sum(counts.values())
    return Survey(spec, counts, images, side, side, side, {"PNG": images}, False, 0, (), **more)  # type: ignore[arg-type]


def of(groups: int, each: int) -> dict[str, int]:
    return {f"group-{i}": each for i in range(groups)}


@pytest.mark.parametrize(("groups", "each"), [(2, 120), (4, 60), (10, 100), (50, 100), (300, 20)])
def test_a_training_is_long_enough_and_an_unlearning_is_a_share_of_it(groups: int, each: int) -> None:
    made = propose(seen(of(groups, each)), lambda recipe: QUICK, name="x")
    steps = made.recipe.train.steps
    assert steps is not None
    assert steps >= FLOOR
    assert made.recipe.unlearn.steps * 32 <= steps * made.recipe.train.batch_size / 8
    assert made.costs.unlearn < made.costs.retrain / 4
    assert not made.costs.retraining_is_cheaper
    assert made.within


def test_many_images_are_seen_twenty_times_where_there_is_time() -> None:
    counts = of(10, 2000)
    quick = propose(seen(counts), lambda recipe: QUICK, name="x")
    assert quick.recipe.train.steps == 20 * 20_000 // 32
    slow = Speed(5e-4, 5e-5)
    made = propose(seen(counts, side=16), lambda recipe: slow, name="x", minutes=10)
    assert FLOOR <= made.recipe.train.steps < 20 * 20_000 // 32  # type: ignore[operator]
    assert made.costs.whole <= 630 or made.recipe.train.steps == FLOOR


def test_the_size_is_what_the_time_allows_and_never_more_than_the_files_have() -> None:
    def time(recipe: Recipe) -> Speed:  # as networks do: by the pixels
        return Speed(recipe.data.size**2 * 1e-6, recipe.data.size**2 * 1e-6)

    counts = of(4, 60)
    small, large = (
        propose(seen(counts), time, name="x", minutes=minutes).recipe.data.size for minutes in (3, 60)
    )
    assert 16 <= small < large == 64
    assert propose(seen(counts, side=20), time, name="x", minutes=1e6).recipe.data.size == 20
    assert propose(seen(counts, side=10), time, name="x").recipe.data.size == 8
    hurried = propose(seen(counts), time, name="x", minutes=0.1)
    assert hurried.recipe.train.steps == FLOOR
    assert not hurried.within


def test_the_written_recipe_says_the_same(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    spec = DataSpec(path=str(tmp_path / "images"), group=("artist",), root="a b: c")
    made = propose(
        Survey(spec, of(3, 10), 30, 32, 32, 32, {"PNG": 30}, True, 0, ()), lambda recipe: QUICK, name='q"x'
    )
    path = tmp_path / "mine.yaml"
    path.write_text(text_of(made, path))
    recipe, text = lookup.load(str(path))
    assert to_dict(recipe) == to_dict(made.recipe)
    assert 'path: "images"' in text  # from the recipe's folder
    assert "passes; fewer than 2,000 steps draw noise" in text


@pytest.mark.parametrize("side", [9, 15, 20, 28, 36, 50, 52, 56, 60, 64])
def test_every_proposed_network_can_run(side: int) -> None:
    for size in sizes(seen(of(2, 8), side)):
        assert size <= max(side, 8)
        assert size % multiple(size) == 0


def test_images_of_sixty_pixels_are_timed(one_thread: None) -> None:
    """Their network halves them three times: 60 is no multiple of 8."""
    from guda_cli.workflow.project.compute import setup
    from guda_cli.workflow.starting.speed import measure

    compute = setup("cpu")
    made = propose(seen(of(2, 8), 60), lambda recipe: measure(recipe, compute), name="x", minutes=1e9)
    assert made.recipe.data.size == 48


@pytest.mark.parametrize(
    "name", ["a\x7fb", "a\x85\u2028b", "\ufeffx\ufffe", "a\nb\t\x1b", "# x: 'y\" \\", "😀"]
)
def test_any_name_reads_back_from_the_written_recipe(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    spec = DataSpec(path=str(tmp_path / name), group=(name,), root=name)
    found = Survey(spec, of(3, 10), 30, 32, 32, 32, {"PNG": 30}, True, 0, ())
    made = propose(found, lambda recipe: QUICK, name=name)
    path = tmp_path / "mine.yaml"
    path.write_text(text_of(made, path), encoding="utf-8")
    assert to_dict(lookup.load(str(path))[0]) == to_dict(made.recipe)


def test_what_may_go_wrong_is_said() -> None:
    counts = {"a": 400, "b": 30, "c": 20, "d": 3}
    pairs = {"same": (("x", "y"),), "same_across": (("x", "z"), ("v", "w"))}
    said = remarks(seen(counts, **pairs, models=("m/unet",)))
    assert said == [
        "fewer than 8 images: d; little can be said of so small a group",
        "more than 10 times the median group of 30: a; groups are ranked by z",
        "1 image is the same as another image of the group (x and y)",
        "2 images are the same as an image of another group: neither can be told from the other (x and z)",
        "m/unet looks like a model: guda train --from takes over one trained on these images",
    ]


# -- as a user would -------------------------------------------------------------------------------

TINY = [
    "--set", "train.steps=6", "--set", "train.batch_size=8", "--set", "unlearn.steps=2",
    "--set", "score.timesteps=4", "--set", "score.calibration=0", "--set", "sample.steps=3",
]  # fmt: skip


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    draw(tmp_path / "art", ("amber", "blue", "cyan"), images=6)
    return tmp_path


def test_init_writes_a_recipe_that_becomes_current(cli: Cli, here: Path, documents: Documents) -> None:
    [found] = documents(cli("init", "art", "--yes", "--json").stdout)
    assert found["recipe"] == "guda.yaml"
    assert found["groups"] == [{"name": name, "size": 6} for name in ("amber", "blue", "cyan")]
    assert found["seconds"]["whole"] > 0
    assert found["proposed"]["train_steps"] >= FLOOR
    status = cli("status").stdout
    assert "recipe art" in status
    plan = cli("run", "--dry-run").stdout
    assert "unlearn amber" in plan
    assert re.search(r"of \d+ steps to do, about", plan)  # before anything was trained
    assert not (here / "queries").exists()
    again = cli("init", "art", "--yes", "--json").document
    assert again["proposed"] == found["proposed"]


def test_init_does_not_overwrite_an_edited_recipe(cli: Cli, here: Path) -> None:
    cli("init", "art", "--yes", "--size", "8")
    path = here / "guda.yaml"
    path.write_text(path.read_text() + "# mine\n")
    done = cli("init", "art", "--yes", "--size", "8", code=3)
    assert "a recipe that you may have edited is not overwritten" in done.stderr
    assert path.read_text().endswith("# mine\n")
    cli("init", "art", "--yes", "--size", "8", "--force")
    assert not path.read_text().endswith("# mine\n")


@pytest.mark.parametrize(
    ("given", "code"), [(["nowhere"], 3), (["art", "--out", "x.txt"], 2), (["art", "--group", "artist"], 3)]
)
def test_what_init_cannot_do_is_said(cli: Cli, here: Path, given: list[str], code: int) -> None:
    done = cli("init", *given, "--yes", code=code)
    assert "error:" in done.stderr
    assert not (here / "guda.yaml").exists()
    assert not (here / ".guda").exists()


@pytest.mark.parametrize(
    ("given", "code", "said"),
    [
        (["--size", "7"], 2, "multiple of 2"),
        (["--size", "33"], 2, "--size 32"),
        (["--size", "5000"], 2, "up to 256"),
        (["--out", "d.yaml"], 3, "it is a folder"),
        (["--out", "f/x.yaml"], 3, "is no folder"),
        (["--out", "caf\udce9.yaml"], 2, "not valid UTF-8"),
    ],
)
def test_what_cannot_be_is_said_before_the_images_are_read(
    cli: Cli, here: Path, given: list[str], code: int, said: str
) -> None:
    (here / "d.yaml").mkdir()
    (here / "f").write_text("")
    done = cli("init", "art", "--yes", *given, code=code)
    assert said in done.stderr
    assert not done.stdout
    assert not (here / ".guda").exists()


def test_a_folder_whose_name_no_recipe_can_hold_is_refused(cli: Cli, here: Path) -> None:
    (here / "art").rename(here / "a\udcfft")
    assert "not valid UTF-8" in cli("init", "a\udcfft", "--yes", code=3).stderr
    assert not (here / "guda.yaml").exists()


def test_init_again_takes_up_what_it_writes(cli: Cli, here: Path) -> None:
    cli("init", "art", "--yes", "--size", "8")
    cli("init", "art", "--yes", "--size", "12", "--force")
    assert "was edited" not in cli("status").stderr
    assert "was edited" not in cli("run", "--dry-run").stderr


def test_run_does_all_and_then_nothing_again(cli: Cli, here: Path, documents: Documents) -> None:
    cli("init", "art", "--yes", "--size", "8")
    *scored, done = documents(cli("run", "guda.yaml", "-n", "3", "--json", *TINY).stdout)
    assert [document["schema"] for document in scored] == ["guda.score/1"] * 3
    assert done["schema"] == "guda.run/1"
    assert done["images"] == 3
    assert sum(done["checks"].values()) == 3
    assert done["training_check"]["verdict"] in ("failed", "doubtful", "passed")
    assert (here / "report.html").is_file()
    assert sorted(path.name for path in (here / "queries").iterdir()) == [
        *(f"{i:05d}.png" for i in range(3)),
        "samples.json",
    ]
    with Image.open(here / "queries.png") as sheet:
        assert sheet.width > 4 * 96
    records = {record.key for record in Store.open(here / ".guda", create=False).records()}
    text = cli("run", "-n", "3")
    assert {record.key for record in Store.open(here / ".guda", create=False).records()} == records
    assert "0 steps of" in text.stderr or "2 steps of" in text.stderr
    assert "full model: check" in text.stdout
    assert "report: report.html" in text.stdout


@pytest.mark.parametrize(
    ("given", "code", "said"),
    [
        (["--out", "."], 2, "no folder of its own"),
        (["--out", "/"], 2, "no folder of its own"),
        (["--out", ".."], 2, "no folder of its own"),
        (["--html", "-"], 2, "guda report --html -"),
        (["--out", "x", "--html", "x.png"], 2, "the drawn images are put there"),
        (["--out", "x", "--html", "x/r.html"], 2, "the drawn images are put there"),
        (["--out", "art/amber"], 3, "among the training images"),
        (["--out", "art/new"], 3, "among the training images"),
    ],
)
def test_run_refuses_places_before_any_work(
    cli: Cli, here: Path, given: list[str], code: int, said: str
) -> None:
    cli("init", "art", "--yes", "--size", "8")
    before = sorted(here.rglob("*.png"))
    done = cli("run", "guda.yaml", *TINY, *given, code=code)
    assert said in done.stderr
    assert sorted(here.rglob("*.png")) == before
    assert not list(Store.open(here / ".guda", create=False).records("train"))


def test_nothing_is_drawn_among_the_training_images(
    cli: Cli, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`guda init` where the images lie: its default folder for drawn ones would be a group the next time."""
    monkeypatch.chdir(here / "art")
    assert "next: guda run --out ../art-queries" in cli("init", "--yes", "--size", "8").stderr
    cli("run", "guda.yaml", "-n", "2", *TINY, code=3)
    cli("run", "guda.yaml", "-n", "2", "--out", "../art-queries", *TINY)
    assert (here / "art-queries" / "00001.png").is_file()
    assert "training images" in cli("sample", "-n", "1", "--out", "drawn", code=3).stderr
    assert "training images" in cli("train", "guda.yaml", "--sheet", "s.png", *TINY, code=3).stderr
    assert cli("groups", "--json").document["groups"]
    assert not list((here / "art").glob("*.png"))


def test_run_with_retraining_instead(cli: Cli, here: Path) -> None:
    cli("init", "art", "--yes", "--size", "8")
    *_, done = cli("run", "guda.yaml", "-n", "2", "--method", "logo", "--json", *TINY).documents
    assert done["checks"] == {"passed": 0, "doubtful": 0, "failed": 0}
    records = [r for r in Store.open(here / ".guda", create=False).records("train") if r.params["without"]]
    assert len(records) == 3


def test_run_is_strict_where_asked(cli: Cli, here: Path) -> None:
    cli("init", "art", "--yes", "--size", "8")
    done = cli("run", "guda.yaml", "-n", "2", "--strict", *TINY, code=7)
    assert "full model:" in done.stderr
    assert (here / "report.html").is_file()


def test_run_overwrites_nothing_of_others(cli: Cli, here: Path) -> None:
    cli("init", "art", "--yes", "--size", "8")
    (here / "report.html").write_text("mine")
    cli("run", "guda.yaml", *TINY, code=3)
    assert (here / "report.html").read_text() == "mine"
    assert not list(Store.open(here / ".guda", create=False).records("train"))


def test_a_training_that_draws_noise_is_called_so(cli: Cli, here: Path) -> None:
    cli("init", "art", "--yes", "--size", "8")
    done = cli("train", "guda.yaml", "--strict", "--sheet", "s.png", *TINY, code=7)
    assert "check of the full model" in done.stderr
    assert np.asarray(Image.open(here / "s.png")).size
    assert "check " in cli("status").stdout


def test_a_dry_run_before_anything_was_trained_says_how_long(cli: Cli, here: Path) -> None:
    (here / "tiny.yaml").write_text(RECIPE.replace("path: images", "path: art"))
    plan = cli("train", "tiny.yaml", "--each-group", "--dry-run", "--json").document
    models = [step for step in plan["steps"] if "without" in step["what"]]
    assert len(models) == 3
    assert all(step["seconds"] > 0 for step in models)
    assert sorted(path.name for path in here.iterdir()) == ["art", "tiny.yaml"]
