"""WebDataset: samples of one key in one or many tars."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from guda_cli.data.sources import fingerprint, read_dataset
from guda_cli.data.survey import survey
from guda_cli.errors import DataError
from guda_cli.sections import DataSpec
from tests.data.conftest import PngBytes, Write


def samples(png: PngBytes, first: int, last: int, folder: str = "") -> dict[str, bytes]:
    """Samples `first` .. `last` - 1, their class the key's last digit modulo 2."""
    out = {}
    for i in range(first, last):
        key = f"{folder}{i:05d}"
        out[f"{key}.cls"] = f"{i % 2}\n".encode()
        out[f"{key}.jpg"] = png(i, format="JPEG")
        out[f"{key}.json"] = json.dumps({"style": "flat" if i % 3 else "line", "url": f"//{i}"}).encode()
        out[f"{key}.txt"] = f"picture {i}".encode()
    return out


def spec(path: Path | str, **values: object) -> DataSpec:
    return DataSpec(**{"path": str(path), "size": 8, "channels": 3, "group": ("cls",), **values})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["set.tar", "set.tar.gz"])
def test_classes_fields_and_texts_of_a_tar(tar: Write, png: PngBytes, name: str) -> None:
    path = tar(samples(png, 0, 6), name)
    data = read_dataset(spec(path))
    assert data.counts() == {"0": 3, "1": 3}
    assert data.names[:2] == ("00000.jpg", "00001.jpg")
    assert data.prompts[:2] == ("picture 0", "picture 1")
    assert not data.notes
    assert read_dataset(spec(path, group=("style",))).counts() == {"flat": 4, "line": 2}
    assert read_dataset(spec(path, group=("cls", "style"))).counts()["cls=1"] == 3
    with pytest.raises(DataError) as caught:
        read_dataset(spec(path, group=("folder",)))
    assert "data.group=cls" in caught.value.fix


@pytest.mark.parametrize("form", ["braces", "folder"])
def test_shards_are_one_data_set(tar: Write, png: PngBytes, tmp_path: Path, form: str) -> None:
    whole = read_dataset(spec(tar(samples(png, 0, 12), "whole.tar")))
    (tmp_path / "shards").mkdir()
    for i in range(4):
        tar(samples(png, 3 * i, 3 * i + 3), f"shards/train-{i:03d}.tar")
    path = tmp_path / "shards" / ("train-{000..003}.tar" if form == "braces" else "")
    data = read_dataset(spec(path))
    assert data.digest == whole.digest
    assert survey(str(path), ("cls",)).counts == {"0": 6, "1": 6}
    before = fingerprint(spec(path))
    tar(samples(png, 3, 7), "shards/train-001.tar")
    assert fingerprint(spec(path)) != before


def test_keys_that_every_shard_has_get_its_name(tar: Write, png: PngBytes, tmp_path: Path) -> None:
    for i in range(2):
        tar({**samples(png, 0, 2, "a/"), f"b/{i}.png": png(9 + i), f"b/{i}.cls": b"1"}, f"s-{i}.tar")
    data = read_dataset(spec(tmp_path / "s-{0..1}.tar"))
    assert data.names == (
        "a/00000@s-0.jpg", "a/00000@s-1.jpg", "a/00001@s-0.jpg", "a/00001@s-1.jpg",
        "b/0@s-0.png", "b/1@s-1.png",
    )  # fmt: skip
    assert data.prompts[:2] == ("picture 0", "picture 0")


@pytest.mark.parametrize(
    ("names", "path", "said"),
    [
        (["cats-000.tar", "dogs-000.tar"], "", "several sets"),
        (["train-000.tar", "extra-000.tar"], "", "several sets"),
        (["t-00000-of-00003.tar", "t-00002-of-00003.tar"], "", "2 files of t, of 3"),
        (["s-0.tar", "s-2.tar"], "s-{0..2}.tar", "s-1.tar"),
        (["s-0.tar"], "s-{3..2}.tar", "stands for 0 files"),
        (["s-0.tar"], "s-{0..900000000}.tar", "stands for"),
    ],
)
def test_shards_that_are_missing_or_mixed_are_named(
    tar: Write, png: PngBytes, tmp_path: Path, names: list[str], path: str, said: str
) -> None:
    (tmp_path / "in").mkdir()
    for i, name in enumerate(names):
        tar(samples(png, 10 * i, 10 * i + 2), f"in/{name}")
    with pytest.raises(DataError, match=said) as caught:
        read_dataset(spec(tmp_path / "in" / path))
    assert caught.value.why


def test_of_train_and_test_the_first_is_read(tar: Write, png: PngBytes, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for i, name in enumerate(("train-0", "train-1", "val-0", "test-0")):
        tar(samples(png, 2 * i, 2 * i + 2), f"in/{name}.tar")
    data = read_dataset(spec(tmp_path / "in"))
    assert data.names == tuple(f"{i:05d}.jpg" for i in range(4))
    assert data.notes == ("not for training, and so not read: test-0.tar, val-0.tar",)


@pytest.mark.parametrize(
    ("file", "data", "said"),
    [
        ("00000.json", b"[1]", "is not a JSON object"),
        ("00001.json", b"{", "is not JSON"),
        ("00000.cls", b"\xff", "is not UTF-8"),
        ("00001.cls", b"1" * (2 << 20), "bytes"),
        ("00001.cls", b"", "no group"),
    ],
)
def test_a_damaged_sample_is_named(tar: Write, png: PngBytes, file: str, data: bytes, said: str) -> None:
    with pytest.raises(DataError, match=said) as caught:
        read_dataset(spec(tar({**samples(png, 0, 4), file: data})))
    assert file.partition(".")[0] in caught.value.message


def test_a_survey_finds_the_columns(tar: Write, png: PngBytes, folder: Write) -> None:
    found = survey(str(tar(samples(png, 0, 8))))
    assert (found.counts, found.prompts) == ({"flat": 5, "line": 3}, 8)
    assert found.columns[:2] == ("style", "cls")
    labels = folder({"a/0.png": png(0), "a/0.json": b"no JSON", "b/1.png": png(1)})
    assert survey(str(labels)).counts == {"a": 1, "b": 1}


def test_fields_beside_images_are_columns_in_folders_as_well(folder: Write, png: PngBytes) -> None:
    files = {
        "a/0.png": png(0),
        "a/0.json": b'{"artist": "x"}',
        "a/1.png": png(1),
        "a/1.json": b'{"artist": ["y"]}',
    }
    assert read_dataset(spec(folder(files), group=("artist",))).counts() == {"x": 1, "y": 1}
