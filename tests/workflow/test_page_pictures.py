"""Training images and maps on the page: only where asked for, and the right ones."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.workflow.fixtures import MODELS, QUERIES, ROWS, Cli, cli, one_thread, project, template

__all__ = ["cli", "one_thread", "project", "template"]


def pictures(text: str, css: str) -> list[tuple[str, np.ndarray]]:
    """What a picture of a page is called, and its pixels."""
    found = re.findall(rf'<img class="{css} crisp" src="data:image/png;base64,([^"]*)" alt="([^"]*)"', text)
    return [(alt, np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))) for data, alt in found]


def page(cli: Cli, *args: object) -> str:
    cli("report", "--html", "r.html", *args)
    return Path("r.html").read_text()


def pixels(path: Path | str) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image).astype(int)


def test_training_images_are_there_only_where_asked_for(cli: Cli, project: Path) -> None:
    plain = page(cli)
    assert 'alt="training image' not in plain
    assert "Training images" not in plain
    asked = page(cli, "--training", 2)
    assert len(pictures(asked, "beside")) == 2 * QUERIES
    assert "nearest to the image by their pixels" in asked
    assert (
        cli("report", "--json").document["queries"]
        == (cli("report", "--json", "--html", "r.html", "--training", 2).document["queries"])
    )


def test_training_images_are_the_nearest_of_the_named_group(cli: Cli, project: Path, template: Path) -> None:
    found = pictures(page(cli, "--training", 3), "beside")
    queries = cli("report", "--json").document["queries"]
    for query, near in zip(queries, [found[i : i + 3] for i in range(0, len(found), 3)], strict=True):
        group = query["scores"][0]["group"]  # nothing was calibrated: the first is shown
        there = {path: pixels(path) for path in (template / "images" / group).glob("*.png")}
        away = {path: ((pixels(query["image"]) - image) ** 2).sum() for path, image in there.items()}
        nearest = sorted(away, key=lambda path: away[path])[:3]
        assert [alt for alt, _ in near] == [f"training image {group}/{p.name} of {group}" for p in nearest]
        for (_, shown), path in zip(near, nearest, strict=True):
            np.testing.assert_array_equal(shown, there[path])


def test_of_groups_removed_together_the_images_of_both_are_candidates(cli: Cli, project: Path) -> None:
    cli("unlearn", "--group", "amber+blue", "--group", "cyan+dune", "--no-null")
    cli("score", "q")
    found = pictures(page(cli, "--training", 24, "--rank", "score"), "beside")
    of = {alt.rpartition(" of ")[2] for alt, _ in found}
    assert of & {"amber+blue", "cyan+dune"}
    for both in of & {"amber+blue", "cyan+dune"}:
        names = {alt.split()[2].split("/")[0] for alt, _ in found if alt.endswith(f" of {both}")}
        assert names == set(both.split("+"))


def test_methods_without_models_show_them_too(cli: Cli, project: Path) -> None:
    cli("score", "q", "--method", "similarity")
    assert len(pictures(page(cli, "--method", "similarity", "--training", 1), "beside")) == QUERIES


def test_maps_are_there_only_where_asked_for_and_say_what_they_cost(cli: Cli, project: Path) -> None:
    assert pictures(page(cli), "map") == []
    done = cli("report", "--html", "r.html", "--maps", "--maps-images", 2, "--maps-top", 4)
    assert f"maps of 2 images: {2 * ROWS * MODELS} network forwards" in done.stderr
    found = pictures(Path("r.html").read_text(), "map")
    assert len(found) == 8
    first = cli("report", "--json").document["queries"][0]
    assert [alt for alt, _ in found[:4]] == [f"map of {s['group']} over q/00000.png" for s in first["scores"]]


def test_a_map_adds_up_to_the_score(cli: Cli, project: Path) -> None:
    from guda_cli.session import Options, Session
    from guda_cli.workflow.project.project import Project
    from guda_cli.workflow.reporting import answers_report
    from guda_cli.workflow.reporting.page_maps import Request

    session = Session(Options(quiet=True))
    loaded = Project(session.recipe(), session.open_store(), session.console)
    shown = answers_report.Shown(maps=Request(images=3, top=4, device="cpu"))
    report = answers_report.of_method(loaded, "guda", loaded.recipe.score.weighting, shown)
    assert report.maps is not None
    assert len(report.maps.of) == 3
    for query in report.queries[:3]:
        maps = dict(report.maps.of[query.digest])
        assert maps.keys() == {entry.group for entry in query.scores}
        for entry in query.scores:
            assert maps[entry.group].shape == (8, 8)
            assert maps[entry.group].sum() == pytest.approx(entry.score, rel=1e-3, abs=1e-3)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--training", "2"], "--html FILE"),
        (["--maps"], "--html FILE"),
        (["--maps", "--json"], "--html FILE"),
        (["--maps", "--html", "r.html", "--method", "similarity"], "models without the groups"),
        (["--maps", "--html", "r.html", "--against", "logo"], "--maps does not go with --against"),
        (
            ["--training", "1", "--html", "r.html", "--against", "logo"],
            "--training does not go with --against",
        ),
        (["--training", "-1", "--html", "r.html"], "greater than or equal to 0"),
    ],
)
def test_what_cannot_be(cli: Cli, project: Path, args: list[str], said: str) -> None:
    assert said in cli("report", *args, code=2).stderr
    assert not Path("r.html").exists()
