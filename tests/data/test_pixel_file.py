"""Pixels that lie in a file: the same bytes and digests as in memory, and memory given back."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest

from guda_cli.data import pixel_file
from guda_cli.data.dataset import from_bytes, from_file, make_dataset, part, room_before, to_bytes, to_file
from guda_cli.data.pixel_file import canvas, chosen, is_mapped, kept_in, rows
from guda_cli.data.similarity import nearest_members
from guda_cli.data.sources import read_dataset
from guda_cli.errors import CorruptError, DataError
from guda_cli.sections import DataSpec
from tests.data.conftest import Write

SHAPE = (40, 3, 8, 8)
NAMES = [f'grüße "{i:02d}"\t\x7f/\\.png' for i in range(40)]
GROUPS = [{"a" if i % 3 else "b ü"} for i in range(40)]
PROMPTS = [None if i % 2 else "ein \n Text" for i in range(40)]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """More than a few images are large."""
    monkeypatch.setattr(pixel_file, "MAPPED", 1000)
    monkeypatch.setattr(pixel_file, "BLOCK", 7 * 3 * 8 * 8)


def pixels(count: int = 40) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, *SHAPE[1:]), dtype=np.uint8)


def filled(images: np.ndarray, before: int = 0) -> np.ndarray:
    """The same on a canvas, put in from the last to the first."""
    out = canvas(images.shape, lambda: before)
    for row in reversed(range(len(images))):
        out[row] = images[row]
    return out.finished()


@pytest.mark.parametrize("before", [0, 8, 4095, 5000])
def test_a_canvas_in_a_file_holds_what_was_put_in(small: None, tmp_path: Path, before: int) -> None:
    with kept_in(tmp_path):
        found = filled(pixels(), before)
    assert is_mapped(found)
    assert not is_mapped(filled(pixels(5)))
    np.testing.assert_array_equal(found, pixels())
    np.testing.assert_array_equal(np.stack(list(rows(found))), pixels())
    assert not list(tmp_path.iterdir())  # it has no name
    with pytest.raises(ValueError):
        found[0] = 0


@pytest.mark.parametrize(
    "wanted", [np.arange(40) % 4 > 0, np.arange(39, -1, -1), np.array([3, 3, 39]), np.zeros(40, bool)]
)
def test_chosen_images_are_those_of_an_index(small: None, wanted: np.ndarray) -> None:
    found = chosen(filled(pixels()), wanted)
    np.testing.assert_array_equal(found, pixels()[wanted])
    assert is_mapped(found) == (found.size > pixel_file.MAPPED)


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("told", [None, [("rot", "grün")] * 40])
def test_a_file_has_the_bytes_that_memory_would_give(
    small: None, tmp_path: Path, kept: bool, told: list[tuple[str, ...]] | None
) -> None:
    plain = make_dataset(pixels(), NAMES, GROUPS, PROMPTS, descriptors=told)
    with kept_in(tmp_path):
        images = filled(pixels(), room_before(NAMES, GROUPS, PROMPTS, told, SHAPE) if kept else 0)
    data = make_dataset(images, NAMES, GROUPS, PROMPTS, descriptors=told)
    assert data.digest == plain.digest
    to_file(data, tmp_path / "stored")
    assert (tmp_path / "stored").read_bytes() == to_bytes(plain)
    for back in (from_file(tmp_path / "stored"), from_bytes((tmp_path / "stored").read_bytes())):
        assert (back.names, back.groups, back.prompts, back.digest) == (
            plain.names, plain.groups, plain.prompts, plain.digest,
        )  # fmt: skip
        assert back.descriptors == plain.descriptors
        np.testing.assert_array_equal(back.images, plain.images)
        np.testing.assert_array_equal(back.membership, plain.membership)
    mask = np.arange(40) % 3 == 0
    assert part(data, mask).digest == part(plain, mask).digest


@pytest.mark.skipif(not hasattr(os, "O_TMPFILE"), reason="files without a name")
def test_a_decoded_file_becomes_the_stored_one_without_a_copy(small: None, tmp_path: Path) -> None:
    with kept_in(tmp_path):
        images = filled(pixels(), room_before(NAMES, GROUPS, None, None, SHAPE))
    to_file(make_dataset(images, NAMES, GROUPS), tmp_path / "stored")
    found = images.base
    while not isinstance(found, pixel_file._Mapping):
        found = found.obj if isinstance(found, memoryview) else found.base
    assert found.fd is not None
    assert os.fstat(found.fd).st_ino == (tmp_path / "stored").stat().st_ino


@pytest.mark.parametrize("damage", ["cut", "other", "lengths", "empty"])
def test_a_damaged_file_is_said_to_be_one(tmp_path: Path, damage: str) -> None:
    path, data = tmp_path / "stored", to_bytes(make_dataset(pixels(), NAMES, GROUPS))
    path.write_bytes(
        {"cut": data[:-4000], "other": b"no data set at all", "empty": b"",
         "lengths": data.replace(b'"shape":[40,3', b'"shape":[20,6', 1)}[damage]
    )  # fmt: skip
    with pytest.raises(CorruptError):
        from_file(path)


def test_a_full_disk_is_told_before_any_image_is_decoded(tmp_path: Path) -> None:
    with kept_in(tmp_path), pytest.raises(DataError, match="no room for") as caught:
        canvas((1 << 40, 3, 512, 512))
    assert "TMPDIR" in caught.value.fix


@pytest.mark.parametrize("form", ["folder", "tar", "zip_", "held_out", "packed"])
def test_a_source_gives_the_same_data_set_in_a_file(
    small: None, request: pytest.FixtureRequest, two_groups: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch, form: str,
) -> None:  # fmt: skip
    if form == "packed":
        spec = DataSpec(source="digits", size=16, per_group=9)
    else:
        write: Write = request.getfixturevalue("folder" if form == "held_out" else form)
        share = 0.4 if form == "held_out" else 0.0
        spec = DataSpec(path=str(write(two_groups)), size=16, channels=3, held_out=share)
    large = read_dataset(spec)
    monkeypatch.setattr(pixel_file, "MAPPED", 1 << 30)
    plain = read_dataset(spec)
    assert is_mapped(large.images)
    assert not is_mapped(plain.images)
    assert large.digest == plain.digest
    assert to_bytes(large) == to_bytes(plain)
    assert large.notes == plain.notes
    if large.held_out and plain.held_out:
        assert large.held_out.digest == plain.held_out.digest


def test_neighbours_among_mapped_images_are_the_same(small: None) -> None:
    plain, large = (make_dataset(images, NAMES, GROUPS) for images in (pixels(), filled(pixels())))
    queries = pixels(6)
    found = [nearest_members(queries, data, ["b ü"], 4).tolist() for data in (plain, large)]
    assert found[0] == found[1]
    assert {plain.groups[int(plain.membership[i].argmax())] for row in found[0] for i in row} == {"b ü"}


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="how much of a mapping is in memory")
def test_memory_of_mapped_images_is_given_back(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(pixel_file, "MAPPED", 1 << 20)
    monkeypatch.setattr(pixel_file, "BLOCK", 1 << 20)
    with kept_in(tmp_path):
        images = filled(np.zeros((256, 3, 128, 128), dtype=np.uint8))
    most, sha = 0, hashlib.sha256()
    for image in rows(images):
        sha.update(image.data)
        most = max(most, resident(images))
    assert sha.hexdigest() == hashlib.sha256(bytes(images.size)).hexdigest()
    assert 0 < most <= 2 << 20
    assert resident(images) == 0


def resident(images: np.ndarray) -> int:
    """Bytes of the mapping of `images` that are in the memory of this process."""
    address = images.ctypes.data
    lines = Path("/proc/self/smaps").read_text().splitlines()
    inside = False
    for line in lines:
        first = line.split(" ", 1)[0]
        if "-" in first and not first.endswith(":"):
            start, end = (int(value, 16) for value in first.split("-"))
            inside = start <= address < end
        elif inside and line.startswith("Rss:"):
            return int(line.split()[1]) << 10
    raise AssertionError("no such mapping")
