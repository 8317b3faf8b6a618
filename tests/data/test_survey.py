"""A look at folders as people have them."""

from __future__ import annotations

import csv
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from guda_cli.data.survey import near_pairs, survey
from guda_cli.errors import DataError

RNG = np.random.default_rng(3)


def picture(side: int = 40) -> Image.Image:
    """Something with a structure that a perceptual hash can hold on to."""
    small = Image.fromarray(RNG.integers(0, 256, (5, 5, 3), dtype=np.uint8))
    return small.resize((side, side), Image.Resampling.BICUBIC)


def fill(folder: Path, names: tuple[str, ...], images: int = 3, side: int = 40) -> None:
    for name in names:
        (folder / name).mkdir(parents=True)
        for i in range(images):
            picture(side).save(folder / name / f"{i}.png")


def test_groups_sizes_and_formats(tmp_path: Path) -> None:
    fill(tmp_path, ("ada", "bo"))
    picture(64).resize((80, 64)).save(tmp_path / "bo" / "wide.jpg")
    found = survey(str(tmp_path))
    assert found.counts == {"ada": 3, "bo": 4}
    assert (found.images, found.smallest, found.median, found.largest) == (7, 40, 40, 64)
    assert found.formats == {"PNG": 6, "JPEG": 1}
    assert not found.grey
    assert (found.spec.root, found.spec.group) == ("", ("folder",))


@pytest.mark.parametrize(
    ("top", "root"),
    [
        ("pictures", "pictures"),
        ("train", "train"),
        ("all/of/them", "all/of/them"),
        ("set/Train", "set/Train"),
    ],
)
def test_a_folder_around_all_counts_as_none(tmp_path: Path, top: str, root: str) -> None:
    fill(tmp_path / top, ("ada", "bo"))
    if top.lower().endswith("train"):
        fill((tmp_path / top).parent / "test", ("ada", "bo"), images=1)
    found = survey(str(tmp_path))
    assert (found.spec.root, found.counts) == (root, {"ada": 3, "bo": 3})


def test_archives_are_looked_at_in_place(tmp_path: Path) -> None:
    fill(tmp_path / "a", ("ada", "bo"))
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for path in sorted((tmp_path / "a").rglob("*.png")):
            archive.write(path, Path("wrapped") / path.relative_to(tmp_path / "a"))
    assert survey(str(tmp_path / "a.zip")).spec.root == "wrapped"


def flat(folder: Path, columns: dict[str, list[str]]) -> None:
    folder.mkdir()
    count = len(next(iter(columns.values())))
    for i in range(count):
        picture().save(folder / f"{i}.png")
    with (folder / "metadata.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file_name", *columns])
        writer.writerows([f"{i}.png", *(values[i] for values in columns.values())] for i in range(count))


def test_without_folders_a_metadata_column_names_the_groups(tmp_path: Path) -> None:
    ids = [str(i) for i in range(6)]  # each image its own: no groups
    flat(tmp_path / "x", {"id": ids, "licence": list("ccbbaa"), "artist": list("aabbab"), "one": ["x"] * 6})
    found = survey(str(tmp_path / "x"))
    assert found.columns == ("artist", "licence")
    assert found.counts == {"a": 3, "b": 3}
    assert survey(str(tmp_path / "x"), ["licence"]).counts == {"a": 2, "b": 2, "c": 2}


def test_captions_are_counted_and_are_no_groups(tmp_path: Path) -> None:
    flat(tmp_path / "x", {"text": ["a cat"] * 3 + ["a dog"] * 3, "artist": list("aabbab")})
    found = survey(str(tmp_path / "x"))
    assert (found.prompts, found.columns) == (6, ("artist",))


def test_no_groups_is_said_with_a_way_out(tmp_path: Path) -> None:
    for i in range(3):
        picture().save(tmp_path / f"{i}.png")
    with pytest.raises(DataError) as caught:
        survey(str(tmp_path))
    assert "nothing says which group" in caught.value.message
    assert "folder named after it" in caught.value.fix


def test_grey_images_are_told(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for i in range(2):
            picture().convert("L").convert("RGB").save(tmp_path / name / f"{i}.png")
    assert survey(str(tmp_path)).grey


def test_duplicates_within_and_across_groups(tmp_path: Path) -> None:
    fill(tmp_path, ("ada", "bo"), images=4)
    Image.open(tmp_path / "ada" / "0.png").save(tmp_path / "ada" / "same.bmp")
    Image.open(tmp_path / "ada" / "1.png").save(tmp_path / "bo" / "same.png")
    Image.open(tmp_path / "bo" / "2.png").save(tmp_path / "bo" / "near.jpg", quality=60)
    Image.open(tmp_path / "bo" / "3.png").filter(ImageFilter.GaussianBlur(1)).save(
        tmp_path / "ada" / "near.png"
    )
    found = survey(str(tmp_path))
    assert found.same == (("ada/same.bmp", "ada/0.png"),)
    assert found.same_across == (("bo/same.png", "ada/1.png"),)
    assert found.near == (("bo/near.jpg", "bo/2.png"),)
    assert found.near_across == (("bo/3.png", "ada/near.png"),)


def test_flat_images_are_not_near_each_other() -> None:
    """Their perceptual hashes are nearly alike whatever their colour."""
    images = np.zeros((3, 3, 32, 32), dtype=np.uint8)
    images[1], images[2] = 100, 220
    assert near_pairs(images) == []


def test_a_model_beside_is_seen(tmp_path: Path) -> None:
    fill(tmp_path / "images", ("ada", "bo"))
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model_index.json").write_text("{}")
    assert survey(str(tmp_path / "images")).models == (str(tmp_path / "model"),)


def test_packed_data_sets_have_a_side(tmp_path: Path) -> None:
    images = RNG.integers(0, 256, (6, 20, 28), dtype=np.uint8)
    head = bytes((0, 0, 8, 3)) + struct.pack(">3I", *images.shape)
    (tmp_path / "train-images-idx3-ubyte").write_bytes(head + images.tobytes())
    labels = bytes((0, 0, 8, 1)) + struct.pack(">I", 6) + bytes((0, 1, 0, 1, 0, 1))
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(labels)
    found = survey(str(tmp_path))
    assert (found.median, found.images, len(found.counts)) == (20, 6, 2)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (["a", "b", "a", ""], "nothing for 3.png"),
        (list("abcd"), "4 values for 4 images"),
        (list("aaaa"), "the same for all images"),
    ],
)
def test_why_a_metadata_column_names_no_groups(tmp_path: Path, values: list[str], said: str) -> None:
    flat(tmp_path / "x", {"artist": values})
    with pytest.raises(DataError) as caught:
        survey(str(tmp_path / "x"))
    assert f"column artist of the metadata: {said}" in caught.value.why


def test_a_column_called_folder_is_not_taken_for_folders(tmp_path: Path) -> None:
    flat(tmp_path / "x", {"folder": list("aabb")})
    with pytest.raises(DataError) as caught:
        survey(str(tmp_path / "x"))
    assert "name the column otherwise" in caught.value.why
    flat(tmp_path / "y", {"folder": list("aabb"), "artist": list("abab")})
    assert survey(str(tmp_path / "y")).columns == ("artist",)


def test_loose_images_beside_groups_and_a_single_group_are_called_so(tmp_path: Path) -> None:
    fill(tmp_path / "x", ("ada", "bo"))
    picture().save(tmp_path / "x" / "loose.png")
    with pytest.raises(DataError) as caught:
        survey(str(tmp_path / "x"))
    assert "1 image is of no group" in caught.value.message
    assert caught.value.why == "loose.png lies in no folder of a group, beside folders with images"
    assert caught.value.fix.startswith("move it")
    fill(tmp_path / "y", ("ada",))
    with pytest.raises(DataError) as caught:
        survey(str(tmp_path / "y"))
    assert "all images are of one group, ada" in caught.value.message


def test_an_empty_folder_is_called_so(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        survey(str(tmp_path))
    assert caught.value.message.endswith("is empty")
    assert "data.path" not in caught.value.fix


def test_what_is_left_out_is_not_counted(tmp_path: Path) -> None:
    fill(tmp_path / "top", ("x", "y"))
    rows = [f"{group}/{i}.png,{'ab'[i % 2]}" for group in "xy" for i in range(3)]
    (tmp_path / "top" / "metadata.csv").write_text("\n".join(["file_name,artist", *rows]))
    picture().save(tmp_path / "top" / "x" / "0.sync-conflict-20240501-120000-ABCDEFG.png")
    found = survey(str(tmp_path), ("artist",))
    assert found.formats == {"PNG": 6}
    assert found.columns == ("artist",)
    assert found.counts == {"a": 4, "b": 2}
