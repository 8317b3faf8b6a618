"""UnlearnCanvas exactly as it is downloaded."""

from __future__ import annotations

import pytest

from guda_cli.data.sources import read_dataset
from guda_cli.data.styles import content_ids, styles_of
from guda_cli.data.survey import survey
from guda_cli.errors import DataError
from guda_cli.sections import DataSpec, TextSpec
from tests.data.conftest import PngBytes, Write

STYLES = ("Van_Gogh", "Abstractionism")
PATTERN = TextSpec(pattern="(?P<object>.*?), artistic style featuring (?P<style>.*)")


@pytest.fixture
def files(png: PngBytes) -> dict[str, bytes]:
    places = [(a, b, i) for a in (*STYLES, "Seed_Images") for b in ("Cats", "Sea_Lions") for i in (1, 2)]
    return {f"{a}/{b}/{i}.jpg": png(n, format="JPEG") for n, (a, b, i) in enumerate(places)}


def spec(path: object, **values: object) -> DataSpec:
    return DataSpec(**{"path": str(path), "size": 8, "channels": 3, **values})  # type: ignore[arg-type]


@pytest.mark.parametrize("form", ["folder", "tar", "zip_"])
@pytest.mark.parametrize("root", ["", "UnlearnCanvas"])
def test_styles_are_groups_and_names_are_prompts(
    request: pytest.FixtureRequest, files: dict[str, bytes], form: str, root: str
) -> None:
    write: Write = request.getfixturevalue(form)
    inside = {f"{root}/{name}" if root else name: data for name, data in files.items()}
    data = read_dataset(spec(write(inside), root=root, prompts="prompts.jsonl"))
    assert data.counts() == dict.fromkeys(sorted(STYLES), 4)
    at = data.names.index("Van_Gogh/Sea_Lions/1.jpg")
    assert data.prompts[at] == "a picture of sea lions, artistic style featuring van gogh"
    assert styles_of(data, PATTERN, None)["Van_Gogh"] == ("van gogh",)
    assert content_ids(data)[at] == "Sea_Lions/1"
    said = [note.split(":")[0] for note in data.notes]
    assert said == ["Seed_Images is left out", "there is no prompts.jsonl"]


def test_what_the_recipe_names_counts(folder: Write, files: dict[str, bytes]) -> None:
    line = b'{"file_name": "Van_Gogh/Cats/1.jpg", "prompt": "mine"}'
    path = folder({**files, "prompts.jsonl": line})
    data = read_dataset(spec(path, prompts="prompts.jsonl"))
    assert set(data.prompts) == {"mine", None}
    groups = ("Seed_Images", "Van_Gogh")
    assert read_dataset(spec(path, groups=groups)).counts() == dict.fromkeys(groups, 4)
    assert read_dataset(spec(path)).counts() == dict.fromkeys(sorted(STYLES), 4)
    assert survey(str(path)).counts == dict.fromkeys(sorted(STYLES), 4)


@pytest.mark.parametrize("change", ["flat", "other objects", "no seeds"])
def test_other_folders_are_what_they_were(
    folder: Write, png: PngBytes, files: dict[str, bytes], change: str
) -> None:
    if change == "no seeds":
        files = {name: data for name, data in files.items() if not name.startswith("Seed")}
    elif change == "flat":
        files["Van_Gogh/3.jpg"] = png(50, format="JPEG")
    else:
        files["Dune/Sand/1.jpg"] = png(50, format="JPEG")
    path = folder(files)
    data = read_dataset(spec(path))
    assert set(data.groups) == {name.partition("/")[0] for name in files}
    with pytest.raises(DataError, match=r"there is no file prompts\.jsonl"):
        read_dataset(spec(path, prompts="prompts.jsonl"))
