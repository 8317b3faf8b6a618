from __future__ import annotations

import json
import os
import sys
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from guda_cli.data import image_formats
from guda_cli.data.sources import fingerprint, read_dataset
from guda_cli.errors import DataError
from guda_cli.sections import DataSpec

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n"


def as_cache(files: Path, cache: Path) -> Path:
    """The files of a folder as the hub's client keeps them in `cache`."""
    snapshot = cache / "snapshots" / "abc"
    for number, path in enumerate(sorted(p for p in files.rglob("*") if p.is_file())):
        blob, link = cache / "blobs" / f"{number:064x}", snapshot / path.relative_to(files)
        blob.parent.mkdir(parents=True, exist_ok=True)
        link.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(path.read_bytes())
        link.symlink_to(os.path.relpath(blob, link.parent))
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text("abc")
    return cache


def _spec(path: Path, **changes: object) -> DataSpec:
    return DataSpec(**{"path": str(path), "size": 8, **changes})  # type: ignore[arg-type]


def _fails(spec: DataSpec) -> str:
    with pytest.raises(DataError) as caught:
        read_dataset(spec)
    return " | ".join((caught.value.message, caught.value.why, caught.value.fix))


def test_first_folder_is_the_group(folder: Callable[..., Path], two_groups: dict[str, bytes]) -> None:
    calls: list[tuple[int, int | None]] = []
    ds = read_dataset(_spec(folder(two_groups)), lambda done, total: calls.append((done, total)))
    assert ds.names == tuple(sorted(two_groups))
    assert ds.counts() == {"cat": 3, "dog": 2}
    assert ds.images.shape == (5, 3, 8, 8)
    assert ds.prompts == (None,) * 5
    assert ds.notes == ()
    assert calls[0] == (0, 5)
    assert calls[-1] == (5, 5)


def test_digest_knows_neither_place_nor_time(
    folder: Callable[..., Path], two_groups: dict[str, bytes]
) -> None:
    here, there = folder(two_groups, "here"), folder(two_groups, "there/deep")
    os.utime(there / "cat" / "0.png", (1, 1))
    assert read_dataset(_spec(here)).digest == read_dataset(_spec(there)).digest


def test_root_is_the_top(folder: Callable[..., Path], two_groups: dict[str, bytes]) -> None:
    files = {f"{part}/{name}": data for part in ("train", "test") for name, data in two_groups.items()}
    ds = read_dataset(_spec(folder(files), root="./train/"))
    assert ds.names == tuple(sorted(two_groups))
    assert "did you mean 'train'" in _fails(_spec(folder(files), root="trian"))
    assert "leads outside" in _fails(_spec(folder(files), root="../set"))


def test_a_root_is_no_name_prefix(folder: Callable[..., Path], two_groups: dict[str, bytes]) -> None:
    files = {f"{part}/{name}": data for part in ("train", "train2") for name, data in two_groups.items()}
    assert len(read_dataset(_spec(folder(files), root="train"))) == 5


def test_groups_and_per_group(
    folder: Callable[..., Path], two_groups: dict[str, bytes], png: Callable[..., bytes]
) -> None:
    path = folder({**two_groups, "eel/0.png": png(9)})
    assert read_dataset(_spec(path, groups=("eel", "cat"))).counts() == {"cat": 3, "eel": 1}
    assert read_dataset(_spec(path, per_group=2)).names == (
        "cat/0.png",
        "cat/1.png",
        "dog/0.png",
        "dog/1.png",
        "eel/0.png",
    )
    assert "did you mean 'dog'" in _fails(_spec(path, groups=("dogs",)))
    assert "only one group" in _fails(_spec(path, groups=("dog",)))


def test_litter_is_silent_and_other_files_are_noted(
    folder: Callable[..., Path], two_groups: dict[str, bytes]
) -> None:
    litter = {"cat/.DS_Store": b"", "__MACOSX/cat/._0.png": b"", "cat/Thumbs.db": b"", ".git/x.png": b"x"}
    other = {"LICENSE": b"", "cat/notes.txt": b""}
    ds = read_dataset(_spec(folder({**two_groups, **litter, **other})))
    assert len(ds) == 5
    assert ds.notes == ("2 files that are no images were ignored (LICENSE, cat/notes.txt)",)


def test_identical_images_in_two_groups_are_noted(
    folder: Callable[..., Path], two_groups: dict[str, bytes]
) -> None:
    ds = read_dataset(_spec(folder({**two_groups, "dog/9.png": two_groups["cat/0.png"]})))
    assert len(ds.notes) == 1
    assert "cat/0.png and dog/9.png" in ds.notes[0]


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, "holds no images"),
        ({"a.txt": b""}, "holds no images"),
        ({"x.png": b"1", "cat/0.png": b"1"}, "data.group to a metadata column"),
        ({"all/cat/0.png": b"1", "all/dog/0.png": b"1"}, "data.root: all"),
        ({"cat/0.png": b"1"}, "only one group"),
    ],
)
def test_useless_folders_say_what_to_do(
    folder: Callable[..., Path], tmp_path: Path, files: Mapping[str, bytes], words: str
) -> None:
    (tmp_path / "set").mkdir()
    assert words in _fails(_spec(folder(files)))


def test_bad_images_are_listed_up_to_five(folder: Callable[..., Path], two_groups: dict[str, bytes]) -> None:
    cut = two_groups["cat/0.png"][:60]
    text = _fails(_spec(folder({**two_groups, "dog/bad.png": cut, "cat/empty.jpg": b""})))
    assert "dog/bad.png" in text
    assert "cat/empty.jpg (the file is empty)" in text
    assert "begin with a dot" in text
    many = {f"cat/bad{i}.png": b"" for i in range(9)}
    text = _fails(_spec(folder({**two_groups, **many}, "many")))
    assert text.count("(the file is empty)") == 5


def test_an_unselected_bad_image_does_no_harm(
    folder: Callable[..., Path], two_groups: dict[str, bytes]
) -> None:
    assert len(read_dataset(_spec(folder({**two_groups, "eel/0.png": b""}), groups=("cat", "dog")))) == 5


def test_links_inside_are_followed_and_outside_refused(
    folder: Callable[..., Path], two_groups: dict[str, bytes]
) -> None:
    path = folder(two_groups)
    (path / "eel").symlink_to(path / "dog")
    (path / "cat" / "9.png").symlink_to("../dog/0.png")
    assert read_dataset(_spec(path)).counts() == {"cat": 4, "dog": 2, "eel": 2}
    outside = folder({"x.png": b"secret"}, "outside")
    (path / "cat" / "out.png").symlink_to(outside / "x.png")
    assert "leads outside the folder" in _fails(_spec(path))
    (path / "cat" / "out.png").unlink()
    (path / "ext").symlink_to(outside)
    assert "'ext' is refused" in _fails(_spec(path))


def test_a_hubs_snapshot_may_link_to_its_blobs(
    folder: Callable[..., Path], two_groups: dict[str, bytes], tmp_path: Path
) -> None:
    plain = folder(two_groups)
    cache = as_cache(plain, tmp_path / "datasets--owner--name")
    digest = read_dataset(_spec(plain)).digest
    assert read_dataset(_spec(cache / "snapshots" / "abc")).digest == digest
    assert read_dataset(_spec(cache)).digest == digest, "the cache's folder stands for its snapshot"
    fingerprint(_spec(cache))
    (cache / "refs" / "main").unlink()
    assert read_dataset(_spec(cache)).digest == digest
    (cache / "snapshots" / "abc" / "cat" / "x.png").symlink_to(plain / "cat" / "0.png")
    assert "leads outside" in _fails(_spec(cache))


def test_blobs_that_are_a_link_are_no_cache(
    folder: Callable[..., Path], two_groups: dict[str, bytes], tmp_path: Path
) -> None:
    plain, trap = folder(two_groups, "plain"), tmp_path / "trap"
    (trap / "snapshots" / "x").mkdir(parents=True)
    (trap / "blobs").symlink_to(plain)
    for group in ("cat", "dog"):
        (trap / "snapshots" / "x" / group).symlink_to(plain / group)
    assert "leads outside" in _fails(_spec(trap / "snapshots" / "x"))


def test_what_git_lfs_has_not_fetched(folder: Callable[..., Path], two_groups: dict[str, bytes]) -> None:
    said = _fails(_spec(folder({**two_groups, "cat/1.png": POINTER})))
    assert "cat/1.png" in said
    assert "git lfs pull" in said
    archive = folder({"x.tar": POINTER}, "packed") / "x.tar"
    assert "git lfs pull" in _fails(_spec(archive))


@pytest.mark.parametrize("mark", [";", "\t"])
def test_tables_with_other_separators(
    folder: Callable[..., Path], two_groups: dict[str, bytes], mark: str
) -> None:
    rows = [("file_name", "artist", "prompt"), *((name, f"by, {name[:3]}", "a b") for name in two_groups)]
    text = "".join(mark.join(row) + "\n" for row in rows)
    data = read_dataset(_spec(folder({**two_groups, "metadata.csv": text.encode()}), group=("artist",)))
    assert data.counts() == {"by, cat": 3, "by, dog": 2}
    assert set(data.prompts) == {"a b"}


def test_a_comma_in_the_header_counts(folder: Callable[..., Path], two_groups: dict[str, bytes]) -> None:
    text = "file_name,style;kind\n" + "".join(f"{name},{name[:3]};x\n" for name in two_groups)
    data = read_dataset(_spec(folder({**two_groups, "metadata.csv": text.encode()}), group=("style;kind",)))
    assert set(data.counts()) == {"cat;x", "dog;x"}


def test_metadata_beside_an_archive_is_not_read_and_that_is_said(
    folder: Callable[..., Path], two_groups: dict[str, bytes]
) -> None:
    place = folder({"metadata.csv": b"file_name,artist\n"}, "place")
    with zipfile.ZipFile(place / "x.zip", "w") as archive:
        for name, data in two_groups.items():
            archive.writestr(name, data)
    notes = read_dataset(_spec(place / "x.zip")).notes
    assert notes == ("metadata.csv beside x.zip is not read: put it into the archive",)
    assert "put it into the archive" in _fails(_spec(place / "x.zip", group=("artist",)))


def test_link_loops_end(folder: Callable[..., Path], two_groups: dict[str, bytes]) -> None:
    path = folder(two_groups)
    (path / "cat" / "up").symlink_to(path)
    (path / "dog" / "self").symlink_to("self")
    ds = read_dataset(_spec(path))
    assert len(ds) == 5
    assert ds.notes == ("2 links or devices were passed over",)
    (path / "dog" / "broken.png").symlink_to("nowhere.png")
    assert "leads nowhere" in _fails(_spec(path))


def test_a_pipe_named_like_an_image_does_not_hang(
    folder: Callable[..., Path], two_groups: dict[str, bytes]
) -> None:
    path = folder(two_groups)
    os.mkfifo(path / "cat" / "pipe.png")
    assert len(read_dataset(_spec(path))) == 5


def test_a_name_that_is_no_utf8_is_refused(folder: Callable[..., Path], two_groups: dict[str, bytes]) -> None:
    path = folder(two_groups)
    try:
        Path(os.fsdecode(os.fsencode(path) + b"/cat/\xff.png")).write_bytes(b"")
    except OSError:
        pytest.skip("the file system takes UTF-8 names only")
    assert "not valid UTF-8" in _fails(_spec(path))


def _jsonl(*rows: Mapping[str, object]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def test_metadata_groups_and_prompts(folder: Callable[..., Path], png: Callable[..., bytes]) -> None:
    rows = _jsonl(
        {"file_name": "a.png", "tag": ["red", "round"], "year": 1999, "text": "an a"},
        {"file_name": "sub/b.png", "tag": "red", "year": 2000.0, "text": None, "caption": "a b"},
        {"file_name": "./c.png", "tag": ["blue"], "year": 1999},
    )
    path = folder({"a.png": png(0), "sub/b.png": png(1), "c.png": png(2), "metadata.jsonl": rows})
    ds = read_dataset(_spec(path, group=("tag",)))
    assert ds.counts() == {"blue": 1, "red": 2, "round": 1}
    assert ds.names == ("a.png", "c.png", "sub/b.png")
    assert ds.prompts == ("an a", None, "a b")
    both = read_dataset(_spec(path, group=("tag", "year")))
    assert both.groups == ("tag=blue", "tag=red", "tag=round", "year=1999", "year=2000")
    assert both.membership.sum() == 7
    assert "did you mean 'year'" in _fails(_spec(path, group=("years",)))
    note = read_dataset(_spec(path, group=("tag",), per_group=1, size=4)).notes
    assert note == ()


def test_per_group_with_shared_images_is_noted(
    folder: Callable[..., Path], png: Callable[..., bytes]
) -> None:
    rows = _jsonl(
        {"file_name": "a.png", "tag": ["x"]},
        {"file_name": "b.png", "tag": ["x", "y"]},
        {"file_name": "c.png", "tag": ["x"]},
    )
    path = folder({"a.png": png(0), "b.png": png(1), "c.png": png(2), "metadata.jsonl": rows})
    ds = read_dataset(_spec(path, group=("tag",), per_group=1))
    assert ds.counts() == {"x": 2, "y": 1}
    assert "1 group has more than 1 images" in ds.notes[0]


def test_csv_metadata_in_subfolders(folder: Callable[..., Path], png: Callable[..., bytes]) -> None:
    files = {
        "train/a/0.png": png(0),
        "train/b/0.png": png(1),
        "train/a/metadata.csv": b'\xef\xbb\xbffile_name,style,prompt\r\n0.png,"x, y","say ""hi"""\r\n',
        "train/b/metadata.csv": b"file_name,style,prompt\n0.png,z,\n",
    }
    ds = read_dataset(_spec(folder(files), root="train", group=("style",)))
    assert ds.counts() == {"x, y": 1, "z": 1}
    assert ds.prompts == ('say "hi"', None)


def test_metadata_above_the_root_counts(folder: Callable[..., Path], png: Callable[..., bytes]) -> None:
    rows = _jsonl(
        *({"file_name": f"{p}/{i}.png", "k": i, "prompt": p} for p in ("train", "test") for i in (0, 1))
    )
    files = {f"{p}/{i}.png": png(i) for p in ("train", "test") for i in (0, 1)}
    ds = read_dataset(_spec(folder({**files, "metadata.jsonl": rows}), root="test", group=("k",)))
    assert ds.names == ("0.png", "1.png")
    assert ds.groups == ("0", "1")
    assert ds.prompts == ("test", "test")


def test_a_list_is_no_caption_and_is_told(folder: Callable[..., Path], png: Callable[..., bytes]) -> None:
    rows = _jsonl(
        {"file_name": "cat/0.png", "text": ["a cat", "an animal"]},
        {"file_name": "cat/1.png", "text": {"en": "a cat"}, "caption": "a cat"},
    )
    files = {
        "metadata.jsonl": rows,
        **{f"{name}.png": png(i) for i, name in enumerate(("cat/0", "cat/1", "x/2"))},
    }
    ds = read_dataset(DataSpec(path=str(folder(files)), size=4))
    assert ds.prompts == (None, "a cat", None)
    assert any("1 image has a list for a caption" in note and "cat/0.png" in note for note in ds.notes)


def test_folder_grouping_takes_prompts_and_tolerates_gaps(
    folder: Callable[..., Path], two_groups: dict[str, bytes]
) -> None:
    rows = _jsonl({"file_name": "cat/0.png", "prompt": "a cat"}, {"file_name": "cat/gone.png"})
    ds = read_dataset(_spec(folder({**two_groups, "metadata.jsonl": rows})))
    assert ds.prompts[:2] == ("a cat", None)
    assert ds.notes == ("1 image named in the metadata not found: cat/gone.png",)
    ds = read_dataset(_spec(folder({**two_groups, "metadata.csv": b"image,label\nx,y\n"}, "other")))
    assert ds.notes == ("metadata.csv was ignored: it has no column file_name",)


def test_folder_may_be_one_of_several_columns(
    folder: Callable[..., Path], two_groups: dict[str, bytes]
) -> None:
    rows = _jsonl(*({"file_name": name, "odd": name.endswith("1.png")} for name in two_groups))
    ds = read_dataset(_spec(folder({**two_groups, "metadata.jsonl": rows}), group=("folder", "odd")))
    assert ds.groups == ("folder=cat", "folder=dog", "odd=false", "odd=true")


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        (b"", "unknown metadata column 's'"),
        (b'{"file_name": "a.png", "s": 1}\n', "1 image has no group: b.png"),
        (b'{"file_name": "a.png", "s": 1}\n{"file_name": "b.png", "s": null}\n', "no group: b.png"),
        (b'{"file_name": "a.png", "s": 1}\n{"file_name": "b.png", "s": []}\n', "no group: b.png"),
        (b'{"file_name": "a.png", "s": {}}\n{"file_name": "b.png", "s": 1}\n', "must be text"),
        (b'{"file_name": "a.png", "s": 1}\n{"file_name": "zz.png", "s": 2}\n', "not found: zz.png"),
        (
            b'{"file_name": "a.png", "s": 1}\n{"file_name": "./a.png", "s": 2}\n',
            "line 2: a.png has a row already",
        ),
        (b'{"file_name": "../a.png", "s": 1}\n', "leads outside"),
        (b'{"file_name": "/a.png", "s": 1}\n', "leads outside"),
        (b'{"s": 1}\n', "names no file"),
        (b"{\n", "line 1 is not JSON"),
        (b"[1]\n", "not a JSON object"),
        (b"\xff\xfe\n", "not UTF-16"),
        (b"\xfc\n", "not UTF-8"),
    ],
)
def test_bad_metadata(
    folder: Callable[..., Path], png: Callable[..., bytes], metadata: bytes, words: str
) -> None:
    path = folder({"a.png": png(0), "b.png": png(1), "metadata.jsonl": metadata})
    assert words in _fails(_spec(path, group=("s",)))


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        (b"file_name,s\na.png,1,2\n", "more fields than the header"),
        (b'file_name,s\na.png,"1\n', "not CSV"),
        (b"image,s\na.png,1\n", "names no file"),
    ],
)
def test_bad_csv(folder: Callable[..., Path], png: Callable[..., bytes], metadata: bytes, words: str) -> None:
    path = folder({"a.png": png(0), "b.png": png(1), "metadata.csv": metadata})
    assert words in _fails(_spec(path, group=("s",)))


def test_grouping_by_column_without_metadata(
    folder: Callable[..., Path], two_groups: dict[str, bytes]
) -> None:
    assert "no metadata.jsonl or metadata.csv" in _fails(_spec(folder(two_groups), group=("style",)))


def test_jsonl_counts_where_both_kinds_lie(folder: Callable[..., Path], png: Callable[..., bytes]) -> None:
    files = {
        "a.png": png(0),
        "b.png": png(1),
        "metadata.jsonl": _jsonl({"file_name": "a.png", "s": 1}, {"file_name": "b.png", "s": 2}),
        "metadata.csv": b"file_name,s\na.png,7\n",
    }
    ds = read_dataset(_spec(folder(files), group=("s",)))
    assert ds.groups == ("1", "2")
    assert ds.notes == ("metadata.csv was ignored: metadata.jsonl beside it counts",)


def test_many_formats_and_sizes_in_one_folder(folder: Callable[..., Path], png: Callable[..., bytes]) -> None:
    files = {
        "a/0.JPG": png(0, 20, "RGB", "JPEG"),
        "a/1.webp": png(1, 3, "RGBA", "WEBP"),
        "b/0.gif": png(2, 8, "P", "GIF"),
        "b/1.bmp": png(3, 8, "L", "BMP"),
    }
    ds = read_dataset(_spec(folder(files), channels=1))
    assert ds.images.shape == (4, 1, 8, 8)
    assert ds.images.dtype == np.uint8


@pytest.mark.parametrize("packed", [False, True])
def test_heic_without_its_package_is_refused(
    folder: Callable[..., Path],
    zip_: Callable[..., Path],
    two_groups: dict[str, bytes],
    packed: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    image_formats._load.cache_clear()
    files = {**two_groups, "cat/z.heic": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64)}
    with pytest.raises(DataError, match=r"pip install 'guda\[images\]'"):
        read_dataset(_spec((zip_ if packed else folder)(files)))
