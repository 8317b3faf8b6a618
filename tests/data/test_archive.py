from __future__ import annotations

import contextlib
import random
import stat
import struct
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from guda_cli.data.sources import read_dataset
from guda_cli.errors import DataError
from guda_cli.sections import DataSpec


def _spec(path: Path, **changes: object) -> DataSpec:
    return DataSpec(**{"path": str(path), "size": 8, **changes})  # type: ignore[arg-type]


def _fails(path: Path, **changes: object) -> str:
    with pytest.raises(DataError) as caught:
        read_dataset(_spec(path, **changes))
    return " | ".join((caught.value.message, caught.value.why, caught.value.fix))


def _member(name: str, kind: bytes = tarfile.REGTYPE, **fields: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    for key, value in fields.items():
        setattr(info, key, value)
    return info


def test_tar_gz_zip_and_folder_agree(
    folder: Callable[..., Path],
    tar: Callable[..., Path],
    zip_: Callable[..., Path],
    two_groups: dict[str, bytes],
) -> None:
    expected = read_dataset(_spec(folder(two_groups, "plain"))).digest
    backwards = dict(reversed(two_groups.items()))
    dotted = {f"./{name}": data for name, data in two_groups.items()}
    for path in (
        tar(backwards),
        tar(dotted, "d.tar"),
        tar(backwards, "s.tar.gz"),
        tar(two_groups, "s.tgz"),
        zip_(backwards),
    ):
        assert read_dataset(_spec(path)).digest == expected


def test_metadata_and_root_in_an_archive(tar: Callable[..., Path], png: Callable[..., bytes]) -> None:
    rows = b'{"file_name": "train/a.png", "s": "x", "prompt": "p"}\n{"file_name": "train/b.png", "s": "y"}\n'
    path = tar({"train/a.png": png(0), "train/b.png": png(1), "test/c.png": png(2), "metadata.jsonl": rows})
    ds = read_dataset(_spec(path, root="train", group=("s",)))
    assert ds.counts() == {"x": 1, "y": 1}
    assert ds.prompts == ("p", None)


def test_a_tar_is_known_by_its_content(
    tar: Callable[..., Path], two_groups: dict[str, bytes], tmp_path: Path
) -> None:
    path = tar(two_groups, "s.tar.gz").rename(tmp_path / "s.tar")
    assert len(read_dataset(_spec(path))) == 5
    path = path.rename(tmp_path / "s.bin")
    assert "nothing images are read from" in _fails(path)
    assert len(read_dataset(_spec(path, source="archive"))) == 5


@pytest.mark.parametrize(
    "info",
    [
        _member("/etc/passwd"),
        _member("../up.png"),
        _member("cat/../../up.png"),
        _member("..\\up.png"),
        _member("C:\\x.png"),
        _member("c:x.png"),
        _member("cat/link.png", tarfile.SYMTYPE, linkname="/etc/passwd"),
        _member("cat/inside.png", tarfile.SYMTYPE, linkname="0.png"),
        _member("cat/hard.png", tarfile.LNKTYPE, linkname="cat/0.png"),
        _member("cat/pipe.png", tarfile.FIFOTYPE),
        _member("cat/dev.png", tarfile.CHRTYPE),
        _member("../dir", tarfile.DIRTYPE),
        _member("cat//0.png"),
        _member("./cat/0.png"),
        _member("cat\\0.png"),
        _member("cat/0.png"),
    ],
    ids=lambda info: f"{info.name}-{info.type.decode()}",
)
def test_hostile_tar_members_are_refused_by_name(
    tar: Callable[..., Path], two_groups: dict[str, bytes], info: tarfile.TarInfo
) -> None:
    text = _fails(tar(two_groups, extra=(info,)))
    assert repr(info.name) in text
    assert "is refused" in text


def test_names_that_differ_by_unicode_normalisation_only(
    tar: Callable[..., Path], two_groups: dict[str, bytes]
) -> None:
    files = {**two_groups, "cat/\u00e9.png": b"", "cat/e\u0301.png": b""}
    assert "means the same file" in _fails(tar(files))


def test_a_huge_member_is_refused_before_it_is_read(tmp_path: Path) -> None:
    info = _member("cat/big.png", size=2**40)
    (tmp_path / "big.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    assert "'cat/big.png' is refused" in _fails(tmp_path / "big.tar")


@pytest.mark.parametrize("name", ["s.tar", "s.tar.gz", "s.zip"])
def test_truncated_archives(
    tar: Callable[..., Path], zip_: Callable[..., Path], two_groups: dict[str, bytes], name: str
) -> None:
    path = (zip_ if name.endswith("zip") else tar)(two_groups, name)
    whole = path.read_bytes()
    for keep in (len(whole) // 2, len(whole) // 3, 600, 10, 0):
        path.write_bytes(whole[:keep])
        assert _fails(path)


def test_a_tar_cut_between_two_members(tar: Callable[..., Path], two_groups: dict[str, bytes]) -> None:
    path = tar(two_groups)
    with tarfile.open(path) as archive:
        offset = archive.getmembers()[3].offset
    path.write_bytes(path.read_bytes()[:offset])
    assert "end mark is missing" in _fails(path)


def test_a_damaged_header_in_the_middle_of_a_tar(
    tar: Callable[..., Path], two_groups: dict[str, bytes]
) -> None:
    path = tar(two_groups)
    with tarfile.open(path) as archive:
        offset = archive.getmembers()[3].offset
    data = bytearray(path.read_bytes())
    data[offset + 150] ^= 0x3
    path.write_bytes(data)
    assert "damaged" in _fails(path)


def test_a_flipped_bit_in_a_gzip(tar: Callable[..., Path], two_groups: dict[str, bytes]) -> None:
    path = tar(two_groups, "s.tar.gz")
    data = bytearray(path.read_bytes())
    for at in (len(data) // 2, len(data) - 6):
        broken = bytearray(data)
        broken[at] ^= 0x10
        path.write_bytes(broken)
        assert _fails(path)


@pytest.mark.parametrize(
    "data", [b"", b"nonsense" * 200, b"PK\x03\x04" + bytes(100), b"\x1f\x8b" + bytes(30)]
)
def test_files_that_are_no_archives(tmp_path: Path, data: bytes) -> None:
    for name in ("x.tar", "x.zip"):
        (tmp_path / name).write_bytes(data)
        assert "cannot be read as an archive" in _fails(tmp_path / name)


def test_an_empty_archive(tar: Callable[..., Path], zip_: Callable[..., Path]) -> None:
    assert "holds no images" in _fails(tar({}))
    assert "holds no images" in _fails(zip_({}))


@pytest.mark.parametrize(
    "name", ["../up.png", "/abs.png", "C:\\x.png", "a\\..\\..\\x.png", "./cat/0.png", "cat\\1.png"]
)
def test_hostile_zip_names(zip_: Callable[..., Path], two_groups: dict[str, bytes], name: str) -> None:
    assert "is refused" in _fails(zip_({**two_groups, name: b""}))


def test_exact_duplicates_links_and_encryption_in_a_zip(
    zip_: Callable[..., Path], two_groups: dict[str, bytes]
) -> None:
    path = zip_(two_groups)
    with zipfile.ZipFile(path, "a") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        archive.writestr("cat/0.png", b"")
    assert "'cat/0.png' is refused" in _fails(path)
    path = zip_(two_groups, "link.zip")
    link = zipfile.ZipInfo("cat/link.png")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(link, "/etc/passwd")
    assert "'cat/link.png' is refused" in _fails(path)
    path = zip_(two_groups, "secret.zip")
    data = bytearray(path.read_bytes())
    data[data.rindex(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    assert "encrypted" in _fails(path)


def _set_sizes(path: Path, size: int) -> None:
    """Write another unpacked size into the last member's central record."""
    data = bytearray(path.read_bytes())
    at = data.rindex(b"PK\x01\x02")
    data[at + 24 : at + 28] = struct.pack("<I", size)
    path.write_bytes(data)


def test_a_zip_member_larger_or_smaller_than_declared(
    zip_: Callable[..., Path], two_groups: dict[str, bytes]
) -> None:
    length = len(two_groups["dog/1.png"])
    for size in (length - 1, length + 1, 5):
        path = zip_(two_groups)
        _set_sizes(path, size)
        assert "dog/1.png" in _fails(path)
    path = zip_(two_groups)
    _set_sizes(path, 2**31)
    assert "'dog/1.png' is refused" in _fails(path)


def test_a_zip_bomb_stops_at_its_declared_size(
    zip_: Callable[..., Path], two_groups: dict[str, bytes]
) -> None:
    path = zip_({**two_groups, "zebra/bomb.png": bytes(50 * 2**20)})
    _set_sizes(path, 100)
    assert "zebra/bomb.png" in _fails(path)


def test_a_picture_too_large_for_an_archive(
    zip_: Callable[..., Path], two_groups: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    from guda_cli.data.sources import archive

    monkeypatch.setattr(archive.ZipTree, "max_pixels", 63)
    assert "8 x 8 pixels are more than 63" in _fails(zip_(two_groups))


def test_undecodable_members_are_named(tar: Callable[..., Path], two_groups: dict[str, bytes]) -> None:
    assert "cat/z.png" in _fails(tar({**two_groups, "cat/z.png": b"\x89PNG"}))


@pytest.mark.parametrize("name", ["s.tar", "s.tar.gz", "s.zip"])
def test_random_damage_never_raises_anything_but_data_error(
    tar: Callable[..., Path], zip_: Callable[..., Path], two_groups: dict[str, bytes], name: str
) -> None:
    path = (zip_ if name.endswith("zip") else tar)(two_groups, name)
    whole = path.read_bytes()
    rng = random.Random(name)
    for _ in range(150):
        broken = bytearray(whole)
        for _ in range(rng.randint(1, 4)):
            broken[rng.randrange(len(broken))] = rng.randrange(256)
        path.write_bytes(broken)
        with contextlib.suppress(DataError):
            read_dataset(_spec(path))


def test_a_zip_from_the_future(zip_: Callable[..., Path], two_groups: dict[str, bytes]) -> None:
    path = zip_(two_groups)
    data = bytearray(path.read_bytes())
    data[data.rindex(b"PK\x01\x02") + 6] = 109
    path.write_bytes(data)
    assert "zip file version 10.9" in _fails(path)
