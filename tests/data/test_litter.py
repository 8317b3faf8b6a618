"""What systems and programs leave in folders is no image: in folders, archives and among queries alike."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest

from guda_cli.data.queries import expand
from guda_cli.data.sources import read_dataset
from guda_cli.errors import DataError
from guda_cli.sections import DataSpec

LITTER = (
    "@eaDir/cat/0.png/SYNOPHOTO_THUMB_M.jpg",
    "cat/@eaDir/0.png/SYNOPHOTO_THUMB_S.jpg",
    "#recycle/old.png",
    "#snapshot/cat/0.png",
    "@Recycle/old.png",
    ".@__thumb/default0.png",
    "cat/.@__thumb/0.png",
    "$RECYCLE.BIN/S-1-5-21/$R1.png",
    "RECYCLER/S-1-5-21/Dc1.png",
    "System Volume Information/x.png",
    "FOUND.000/x.png",
    "cat/Thumbs.db",
    "cat/DESKTOP.INI",
    "__MACOSX/cat/._0.png",
    "cat/._0.png",
    "cat/.DS_Store",
    "cat/:2eDS_Store.png",
    ".AppleDouble/0.png",
    "Network Trash Folder/x.png",
    ".Trash-1000/files/x.png",
    ".Trashes/501/x.png",
    "lost+found/x.png",
    ".ipynb_checkpoints/0-checkpoint.png",
    ".thumbnails/normal/x.png",
    ".git/x.png",
    ".stversions/cat/0~20240101-000000.png",
)
KEPT = (
    "@artist/0.png",
    "#12/0.png",
    "recycled/0.png",
    "Recycler/0.png",
    "thumbs/0.png",
    "lost/found.png",
    "$/0.png",
)
CONFLICTS = (
    "cat/0 (conflicted copy 2024-05-01 120000).png",
    "cat/0 (Ada's conflicted copy 2024-05-01).png",
    "cat/0.sync-conflict-20240501-120000-ABCDEFG.png",
    "cat/0_conflict-20240501-120000.png",
    "cat/0 (SFConflict ada@x.org 2024-05-01-12-00-00).png",
    "cat/0_DISKSTATION_May-01-120000-2024_Conflict.png",
    "cat/0 [conflicted].png",
)
Write = Callable[..., Path]


def _spec(path: Path, **changes: object) -> DataSpec:
    return DataSpec(**{"path": str(path), "size": 8, **changes})  # type: ignore[arg-type]


@pytest.fixture(params=["folder", "tar", "zip_"])
def pack(request: pytest.FixtureRequest) -> Write:
    """Files as a folder, a tar and a zip."""
    write: Write = request.getfixturevalue(request.param)
    return write


def test_litter_is_no_image_and_no_group(
    pack: Write, two_groups: dict[str, bytes], png: Callable[..., bytes]
) -> None:
    data = read_dataset(_spec(pack({**two_groups, **{name: png(9) for name in LITTER}})))
    assert data.counts() == {"cat": 3, "dog": 2}
    assert data.notes == ()


def test_names_that_only_look_like_litter_are_groups(pack: Write, png: Callable[..., bytes]) -> None:
    data = read_dataset(_spec(pack({name: png(i) for i, name in enumerate(KEPT)})))
    assert set(data.groups) == {name.partition("/")[0] for name in KEPT}


def test_a_folder_of_queries_passes_litter_over(folder: Write, png: Callable[..., bytes]) -> None:
    path = folder({name: png(1) for name in (*LITTER, *KEPT, "cat/0.png")}, "q")
    expected = sorted(str(path / name) for name in (*KEPT, "cat/0.png"))
    assert expand([str(path)], None) == expected
    assert expand([f"{path}/**/*.*"], None) == expected
    named = expand([f"{path}/@eaDir/**/*.jpg"], None)
    assert named == [str(path / LITTER[0])], "a pattern that names the folder means it"


@pytest.mark.parametrize("by_stdin", [False, True])
def test_litter_among_named_paths_is_left_out_and_told(
    folder: Write, png: Callable[..., bytes], *, by_stdin: bool
) -> None:
    """As `queries/*` becomes in a shell, and `find` prints."""
    path = folder({"a.png": png(0), "@eaDir/a.png/T.jpg": png(1), "$RECYCLE.BIN/x.png": png(2)}, "q")
    names = [str(path / name) for name in ("$RECYCLE.BIN", "@eaDir/a.png/T.jpg", "a.png")]
    said: list[str] = []
    given = (["-"], io.StringIO("\n".join(names))) if by_stdin else (names, None)
    assert expand(*given, said.append) == [names[2]]
    assert "systems leave behind" in said[0]
    assert expand([names[1]], None, said.append) == [names[1]], "alone it is what is asked for"
    assert len(said) == 1


@pytest.mark.parametrize("copy", CONFLICTS)
def test_conflict_copies_are_left_out_and_told(
    pack: Write, two_groups: dict[str, bytes], png: Callable[..., bytes], copy: str
) -> None:
    data = read_dataset(_spec(pack({**two_groups, copy: png(9)})))
    assert data.counts() == {"cat": 3, "dog": 2}
    assert "1 conflict copy of a syncing tool left out" in data.notes[0]
    assert copy in data.notes[0]


def test_a_conflict_copy_without_its_image_is_one(
    folder: Write, two_groups: dict[str, bytes], png: Callable[..., bytes]
) -> None:
    files = {**two_groups, "cat/9.sync-conflict-20240501-120000-ABCDEFG.png": png(9)}
    assert read_dataset(_spec(folder(files))).counts() == {"cat": 4, "dog": 2}


def test_a_conflict_copy_that_metadata_name_is_an_image(
    folder: Write, two_groups: dict[str, bytes], png: Callable[..., bytes]
) -> None:
    files = {**two_groups, CONFLICTS[0]: png(9)}
    rows = "file_name,by\n" + "".join(f"{name},{name[:3]}\n" for name in files)
    path = folder({**files, "metadata.csv": rows.encode()})
    assert read_dataset(_spec(path, group=("by",))).counts() == {"cat": 4, "dog": 2}


def test_conflict_copies_among_queries(folder: Write, png: Callable[..., bytes]) -> None:
    path = folder({"0.png": png(0), "0.sync-conflict-20240501-120000-ABCDEFG.png": png(1)}, "q")
    said: list[str] = []
    assert expand([str(path)], None, said.append) == [str(path / "0.png")]
    assert "conflict copies" in said[0]


def test_what_icloud_has_not_downloaded_is_refused_by_name(pack: Write, two_groups: dict[str, bytes]) -> None:
    path = pack({**two_groups, "cat/.9.png.icloud": b"bplist00"})
    with pytest.raises(DataError, match=r"9\.png is not there") as caught:
        read_dataset(_spec(path))
    assert "iCloud" in caught.value.why


def test_what_icloud_has_not_downloaded_is_told_among_queries(
    folder: Write, png: Callable[..., bytes]
) -> None:
    path = folder({"a.png": png(0), ".b.png.icloud": b"bplist00"}, "q")
    said: list[str] = []
    assert expand([str(path)], None, said.append) == [str(path / "a.png")]
    assert ".b.png.icloud" in said[0]


@pytest.mark.parametrize("name", ["x.svg", "x.CR2", "x.dng", "x.psd", "x.TGA", "x.jp2", "x.eps"])
def test_pictures_of_formats_that_are_not_read_are_told(
    pack: Write, folder: Write, two_groups: dict[str, bytes], name: str
) -> None:
    kind = name.rpartition(".")[2].upper()
    data = read_dataset(_spec(pack({**two_groups, f"cat/{name}": b"x"})))
    assert len(data) == 5
    assert data.notes == (
        f"1 picture is of a format that is not read (1 {kind}: cat/{name}); save them as PNG or JPEG",
    )
    queries = folder({"a.png": two_groups["cat/0.png"], name: b"x"}, "q")
    said: list[str] = []
    assert expand([str(queries)], None, said.append) == [str(queries / "a.png")]
    assert kind in said[0]
    assert expand([f"{queries}/*"], None, said.append) == [str(queries / "a.png")]
    assert said[1] == said[0]


def test_nothing_but_formats_that_are_not_read(folder: Write) -> None:
    path = folder({"cat/x.svg": b"x", "dog/y.SVG": b"x"})
    for action in (lambda: read_dataset(_spec(path)), lambda: expand([str(path)], None)):
        with pytest.raises(DataError) as caught:
            action()
        assert "2 SVG" in caught.value.why
