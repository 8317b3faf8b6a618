"""Archives and arrays made to fill memory or to cost time: refused by name, and soon."""

from __future__ import annotations

import gzip
import struct
import tarfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from guda_cli.data import images
from guda_cli.data.sources import archive_bounds, read_dataset
from guda_cli.errors import DataError
from guda_cli.sections import DataSpec


def header(name: str, kind: bytes = tarfile.REGTYPE, size: int = 0) -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    return info.tobuf(tarfile.USTAR_FORMAT)


def block(data: bytes) -> bytes:
    return data.ljust(-len(data) // 512 * -512, b"\0")


@pytest.fixture(autouse=True)
def _soon() -> Iterator[None]:
    began = time.process_time()
    yield
    assert time.process_time() - began < 10


def fails(path: Path, **changes: object) -> str:
    with pytest.raises(DataError) as caught:
        read_dataset(DataSpec(**{"path": str(path), "size": 8, **changes}))  # type: ignore[arg-type]
    return " | ".join((caught.value.message, caught.value.why, caught.value.fix))


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", [b"L", b"K", b"x", b"g", b"X"])
def test_long_headers_are_refused_before_they_are_read(tmp_path: Path, kind: bytes, packed: bool) -> None:
    data = header("long", kind, 5 * 10**9) + bytes(4096)
    path = tmp_path / ("a.tar.gz" if packed else "a.tar")
    path.write_bytes(gzip.compress(data) if packed else data)
    assert "5,000,000,000 bytes" in fails(path)
    path.write_bytes((gzip.compress if packed else bytes)(header("g/0.png") + data))
    assert "5,000,000,000 bytes" in fails(path)


def test_ordinary_long_names_and_attributes_are_read(
    tmp_path: Path, two_groups: dict[str, bytes], png: Callable[..., bytes]
) -> None:
    for format in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        path = tmp_path / "a.tar.gz"
        with tarfile.open(path, "w:gz", format=format, pax_headers={"comment": "abc"}) as archive:
            for name, data in {**two_groups, "cat/" + "é" * 110 + ".png": png(9)}.items():
                (tmp_path / "image").write_bytes(data)
                info = archive.gettarinfo(tmp_path / "image", name)
                info.pax_headers = {"SCHILY.xattr.user.note": "n" * 9000, "mtime": "1.5"}
                with (tmp_path / "image").open("rb") as file:
                    archive.addfile(info, file)
        assert len(read_dataset(DataSpec(path=str(path), size=8))) == 6


def test_attributes_for_all_members_are_few(tmp_path: Path) -> None:
    records = b"".join(b"14 k%04d=vvvv\n" % i for i in range(1000))
    data = header("pax", b"g", len(records)) + block(records) + header("g/0.png") + bytes(1024)
    (tmp_path / "a.tar").write_bytes(data)
    assert "made to cost time" in fails(tmp_path / "a.tar")


def test_headers_that_take_long_are_not_read_to_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run of digits takes tarfile the square of its length."""
    digits = b"1" * 16_000
    one = header("pax", b"x", len(digits)) + block(digits)
    (tmp_path / "a.tar").write_bytes(b"".join(one + header(f"g/{i}.png") for i in range(20)) + bytes(1024))
    monkeypatch.setattr(archive_bounds, "_SECONDS", 0.5)
    assert "made to cost time" in fails(tmp_path / "a.tar")


def test_a_gzipped_tar_of_much_nothing_is_refused_by_its_headers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with gzip.open(tmp_path / "b.tar.gz", "wb") as file:
        file.write(header("g/0.png", size=3 << 20) + bytes(3 << 20) + header("g/1.png") + bytes(1024))
    monkeypatch.setattr(archive_bounds, "MAX_UNPACKED", 2 << 20)
    assert "unpacks to more than 2.0 MB" in fails(tmp_path / "b.tar.gz")


def test_members_are_counted(
    tmp_path: Path,
    tar: Callable[..., Path],
    zip_: Callable[..., Path],
    two_groups: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(archive_bounds, "MAX_MEMBERS", 4)
    for path in (tar(two_groups), tar(two_groups, "s.tar.gz"), zip_(two_groups)):
        assert "more than 4 members" in fails(path)


@pytest.mark.parametrize("wide", [False, True])
def test_the_list_of_a_zip_is_measured_before_it_is_read(
    zip_: Callable[..., Path], two_groups: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, wide: bool
) -> None:
    path = zip_(two_groups)
    if wide:  # as zips of more than 65,535 members or 4 GB have it
        monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 3)
        path = zip_(two_groups, "wide.zip")
        assert b"PK\6\6" in path.read_bytes()
        data = bytearray(path.read_bytes())
        at = data.rindex(b"PK\5\6")
        data[at + 12 : at + 16] = b"\xff" * 4
        path.write_bytes(data)
    assert len(read_dataset(DataSpec(path=str(path), size=8))) == 5
    monkeypatch.setattr(archive_bounds, "MAX_DIRECTORY", 100)
    assert "list of members" in fails(path)


# -- arrays --------------------------------------------------------------------------------------------------


def idx(folder: Path, shape: tuple[int, ...], data: bytes, packed: bool) -> Path:
    folder.mkdir()
    end, pack = (".gz", gzip.compress) if packed else ("", bytes)
    images = bytes((0, 0, 8, 3)) + struct.pack(">3I", *shape) + data
    labels = (
        bytes((0, 0, 8, 1)) + struct.pack(">I", shape[0]) + bytes(i % 2 for i in range(min(shape[0], 10)))
    )
    (folder / f"train-images-idx3-ubyte{end}").write_bytes(pack(images))
    (folder / f"train-labels-idx1-ubyte{end}").write_bytes(pack(labels))
    return folder


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ((10, 0, 0), "10 images of 0 x 0 pixels"),
        ((10, 8, 0), "10 images of 8 x 0 pixels"),
        ((0, 8, 8), "holds no images"),
        ((5_000_000, 28, 28), "more than"),
        ((2**32 - 1, 2**32 - 1, 2**32 - 1), "more than"),
        ((10, 8, 8), "header promises"),
    ],
)
def test_idx_files_are_judged_by_their_header(
    tmp_path: Path, shape: tuple[int, ...], said: str, packed: bool
) -> None:
    assert said in fails(idx(tmp_path / "set", shape, b"", packed), channels=1)


def test_an_idx_file_is_read(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 256, (10, 8, 8), dtype=np.uint8)
    for packed in (False, True):
        path = idx(tmp_path / f"set{packed}", values.shape, values.tobytes(), packed)
        found = read_dataset(DataSpec(path=str(path), size=8, channels=1))
        np.testing.assert_array_equal(found.images[:5, 0], values[::2])


def test_a_pipe_is_no_archive(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "a.tar")
    assert "is no file" in fails(tmp_path / "a.tar")


def test_a_huge_file_of_a_folder_is_not_read(
    folder: Callable[..., Path], two_groups: dict[str, bytes]
) -> None:
    """A sparse one takes no disk."""
    path = folder(two_groups)
    with (path / "cat" / "0.png").open("wb") as file:
        file.truncate(50 << 30)
    assert "50.0 GB, more than 1.0 GB" in fails(path)
    with pytest.raises(DataError, match="cannot read image") as caught:
        images.decode(path / "cat" / "0.png", 8, 3, "x")
    assert "more than 1.0 GB" in caught.value.why


def test_a_folder_of_pipes_is_passed_over(folder: Callable[..., Path], two_groups: dict[str, bytes]) -> None:
    import os

    path = folder(two_groups)
    os.mkfifo(path / "cat" / "z.png")
    found = read_dataset(DataSpec(path=str(path), size=8))
    assert len(found) == 5
    assert any("passed over" in note for note in found.notes)
