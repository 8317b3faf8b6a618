"""Parquet files of images, as the hub's `datasets` writes them."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from guda_cli.data import pixel_file
from guda_cli.data.dataset import to_bytes
from guda_cli.data.sources import fingerprint, parquet_table, read_dataset
from guda_cli.data.survey import survey
from guda_cli.errors import DataError, MissingError
from guda_cli.sections import DataSpec
from tests.data.conftest import PngBytes, Write

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

NAMES = ["cat", "dog", "Füchse"]
LABEL = {"_type": "ClassLabel", "names": NAMES}
IMAGE = {"_type": "Image"}
LIST = {"label": {"_type": "List", "feature": LABEL}}


def write(path: Path, columns: dict[str, Any], features: dict[str, Any] | None = None, rows: int = 3) -> Path:
    """A file of these columns in row groups of `rows`, the features beside the schema."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table(columns)
    if features is not None:
        told = json.dumps({"info": {"features": features}})
        table = table.replace_schema_metadata({"huggingface": told})
    pq.write_table(table, path, row_group_size=rows)
    return path


def structs(images: Sequence[bytes | None]) -> Any:
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    return pa.array([{"bytes": data, "path": f"{i}.png"} for i, data in enumerate(images)], kind)


def hub(folder: Path, png: PngBytes, parts: int = 2) -> Path:
    """A data set as the hub has it: `data/train-00000-of-00002.parquet`, and a test set."""
    for part in range(parts):
        rows = range(5 * part, 5 * part + 5)
        columns = {
            "image": structs([png(i) for i in rows]),
            "label": [i % 3 for i in rows],
            "text": [f"picture {i}" for i in rows],
            "style": [["flat", "line"] if i == 4 else ["flat" if i % 2 else "line"] for i in rows],
        }
        path = folder / f"data/train-{part:05d}-of-{parts:05d}.parquet"
        write(path, columns, {"image": IMAGE, "label": LABEL})
    write(folder / "data/test-00000-of-00001.parquet", {"image": structs([png(99)]), "label": [0]})
    (folder / "README.md").write_text("a data set")
    return folder


def spec(path: Path, **values: object) -> DataSpec:
    return DataSpec(**{"path": str(path), "size": 8, "channels": 3, **values})  # type: ignore[arg-type]


def test_a_data_set_of_the_hub(tmp_path: Path, png: PngBytes, folder: Write) -> None:
    path = hub(tmp_path / "set", png)
    data = read_dataset(spec(path))
    assert data.counts() == {"Füchse": 3, "cat": 4, "dog": 3}
    assert data.names == tuple(f"{i}" for i in range(10))
    assert data.prompts[7] == "picture 7"
    assert data.notes == ("not for training, and so not read: test-00000-of-00001.parquet",)
    files = {f"{NAMES[i % 3]}/{i}.png": png(i) for i in range(10)}
    plain = read_dataset(spec(folder(files, "plain")))
    numbers = [int(name.rpartition("/")[2][:-4]) for name in plain.names]
    assert (data.images[numbers] == plain.images).all()
    for same in (path / "data", path / "data" / "train-{00000..00001}-of-00002.parquet"):
        assert read_dataset(spec(same)).digest == data.digest
    assert read_dataset(spec(path, source="parquet")).digest == data.digest
    found = survey(str(path))
    assert (found.counts, found.prompts, found.smallest) == (data.counts(), 10, 8)


def test_groups_come_from_columns(tmp_path: Path, png: PngBytes) -> None:
    path = hub(tmp_path, png)
    assert read_dataset(spec(path, group=("style",))).counts() == {"flat": 6, "line": 5}
    assert read_dataset(spec(path, group=("label", "style"))).counts()["label=cat"] == 4
    data = read_dataset(spec(path, group=("class",), common="style", per_group=2, descriptors="style"))
    assert set(data.counts().values()) == {2}
    assert data.descriptors[0] == ("line",)
    with pytest.raises(DataError, match="did you mean 'style'"):
        read_dataset(spec(path, group=("stile",)))
    before = fingerprint(spec(path))
    hub(tmp_path, png, 3)
    for old in (tmp_path / "data").glob("*-of-00002.parquet"):
        old.unlink()
    assert fingerprint(spec(path)) != before


def test_a_large_one_is_the_same_in_a_file(
    tmp_path: Path, png: PngBytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = read_dataset(spec(hub(tmp_path, png)))
    monkeypatch.setattr(pixel_file, "MAPPED", 1000)
    assert to_bytes(read_dataset(spec(tmp_path))) == to_bytes(plain)


@pytest.mark.parametrize(
    ("features", "labels", "counts"),
    [
        (None, [0, 1, 0, 1], {"0": 2, "1": 2}),
        (None, ["a", "b", "b", "b"], {"a": 1, "b": 3}),
        (LIST, [[0], [0, 1], [2], [1]], {"cat": 2, "dog": 2, "Füchse": 1}),
        ({"label": {"_type": "Value", "dtype": "int64"}}, [7, 8, 7, 8], {"7": 2, "8": 2}),
    ],
)
@pytest.mark.parametrize("form", ["struct", "binary"])
def test_kinds_of_labels_and_of_images(
    tmp_path: Path, png: PngBytes, features: dict[str, Any] | None, labels: list[Any],
    counts: dict[str, int], form: str,
) -> None:  # fmt: skip
    images = [png(i) for i in range(4)]
    column = structs(images) if form == "struct" else pa.array(images, pa.binary())
    path = write(tmp_path / "a.parquet", {"img": column, "label": labels}, features)
    assert read_dataset(spec(path)).counts() == counts


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"label": [0, 1, None]}, "1 row has no group: 2"),
        ({"label": [0, 1, -1]}, "1 row has no group: 2"),
        ({"label": [0, 1, 3]}, "class 3 has no name"),
        ({"image": "empty"}, "row 1 .the row holds no image"),
        ({"image": "broken"}, "row 1 .it is no JPEG"),
        ({"image": "none"}, "no column of images"),
        ({"image": "two"}, "several columns of images"),
    ],
)
def test_what_cannot_be_used_is_named(
    tmp_path: Path, png: PngBytes, change: dict[str, Any], said: str
) -> None:
    images: list[bytes | None] = [png(i) for i in range(3)]
    columns: dict[str, Any] = {"image": structs(images), "label": [0, 1, 2], **change}
    if change.get("image") in ("empty", "broken"):
        columns["image"] = structs([images[0], None if change["image"] == "empty" else b"GIF", images[2]])
    elif change.get("image") == "none":
        columns["image"] = ["a", "b", "c"]
    elif change.get("image") == "two":
        del columns["image"]
        columns |= {"left": structs(images), "right": structs(images)}
    with pytest.raises(DataError, match=said):
        read_dataset(spec(write(tmp_path / "a.parquet", columns, {"label": LABEL})))


@pytest.mark.parametrize("damage", ["cut", "text", "lfs", "empty", "page"])
def test_a_damaged_file_is_said_to_be_one(tmp_path: Path, png: PngBytes, damage: str) -> None:
    path = write(tmp_path / "a.parquet", {"image": structs([png(i) for i in range(6)]), "label": [0, 1] * 3})
    data = path.read_bytes()
    broken = bytearray(data)
    broken[4:400] = b"\xff" * 396
    path.write_bytes({
        "cut": data[:-50], "text": b"no parquet", "empty": b"", "page": bytes(broken),
        "lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 9\n",
    }[damage])  # fmt: skip
    with pytest.raises(DataError) as caught:
        read_dataset(spec(path))
    assert "a.parquet" in caught.value.message
    if damage != "page":  # which may also read as images that are none
        assert caught.value.fix == ("git lfs pull" if damage == "lfs" else "fetch the file again")


def test_a_part_that_is_missing_or_other_is_named(tmp_path: Path, png: PngBytes) -> None:
    hub(tmp_path, png)
    other = tmp_path / "data/train-00001-of-00002.parquet"
    write(other, {"image": structs([png(1)]), "kind": ["a"]})
    with pytest.raises(DataError, match="other columns"):
        read_dataset(spec(tmp_path))
    other.unlink()
    with pytest.raises(DataError, match="1 file of train, of 2"):
        read_dataset(spec(tmp_path))


def test_a_row_group_larger_than_memory_is_refused(
    tmp_path: Path, png: PngBytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = hub(tmp_path, png)
    monkeypatch.setattr(parquet_table, "GROUP_BYTES", 500)
    with pytest.raises(DataError, match="row group 0 holds"):
        read_dataset(spec(path))


def test_without_the_package_the_command_is_named(
    tmp_path: Path, png: PngBytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, find = hub(tmp_path, png), importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "pyarrow" else find(name))
    with pytest.raises(MissingError) as caught:
        read_dataset(spec(path))
    assert caught.value.fix == "pip install 'guda[datasets]'"
