from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from guda_cli.data import image_formats
from guda_cli.data.images import pixels_digest
from guda_cli.data.queries import expand, load_queries, load_query
from guda_cli.errors import DataError, UsageError


@pytest.fixture
def here(folder: Callable[..., Path], png: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch) -> Path:
    path = folder(
        {
            "b.png": png(0),
            "a.png": png(1),
            "sub/c.JPG": png(2, 8, "RGB", "JPEG"),
            "sub/deep/d.png": png(0),
            "sub/note.txt": b"",
            ".hidden/e.png": png(3),
            "[x].png": png(4),
        }
    )
    monkeypatch.chdir(path)
    return path


def test_images_folders_and_globs(here: Path) -> None:
    assert expand(["b.png", "a.png"], None) == ["b.png", "a.png"]
    assert expand(["sub"], None) == ["sub/c.JPG", "sub/deep/d.png"]
    assert expand(["*.png"], None) == ["[x].png", "a.png", "b.png"]
    assert expand(["**/*.png"], None) == ["[x].png", "a.png", "b.png", "sub/deep/d.png"]
    assert expand(["[x].png"], None) == ["[x].png"]
    assert expand(["sub/*"], None) == ["sub/c.JPG", "sub/deep/d.png"]
    assert expand([str(here / "sub")], None) == [str(here / "sub/c.JPG"), str(here / "sub/deep/d.png")]


def test_each_path_once_in_the_order_given(here: Path) -> None:
    assert expand(["b.png", "./b.png", "*.png", "."], None) == [
        "b.png", "[x].png", "a.png", "./sub/c.JPG", "./sub/deep/d.png",
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["a.png\n\n  \nsub/c.JPG\n", "a.png\r\nsub/c.JPG", "a.png\0sub/c.JPG\0"])
def test_paths_from_standard_input(here: Path, text: str) -> None:
    assert expand(["b.png", "-"], io.StringIO(text)) == ["b.png", "a.png", "sub/c.JPG"]


def test_arguments_that_lead_nowhere(here: Path) -> None:
    with pytest.raises(DataError, match=r"no file b\.pngg") as caught:
        expand(["b.pngg"], None)
    assert "b.png" in caught.value.fix
    with pytest.raises(DataError, match=r"no image matches \*\.webp"):
        expand(["*.webp"], None)
    (here / "empty").mkdir()
    with pytest.raises(DataError, match="folder empty holds no image"):
        expand(["empty"], None)
    for nothing, said in (([], "no image was given"), ([""], "path is empty")):
        with pytest.raises(UsageError, match=said):
            expand(nothing, None)
    with pytest.raises(DataError, match="standard input"):
        expand(["-"], None)
    with pytest.raises(DataError, match="held no path"):
        expand(["-"], io.StringIO("\n"))
    with pytest.raises(DataError):
        expand(["no/such/folder/x.png"], None)
    with pytest.raises(DataError):
        expand(["x" * 5000], None)


def test_one_bad_argument_does_not_stop_the_rest(here: Path) -> None:
    """It stands for itself, and is named with the images that cannot be read."""
    (here / "empty").mkdir()
    paths = expand(["a.png", "b.pngg", "*.webp", "empty", "-"], io.StringIO("[y].png\nb.png\n"))
    assert paths == ["a.png", "b.pngg", "*.webp", "empty", "[y].png", "b.png"]
    good, bad = load_queries(paths, 8, 1)
    assert [query.name for query in good] == ["a.png", "b.png"]
    reasons = dict(bad)
    assert reasons["b.pngg"] == "there is no file b.pngg; did you mean b.png?"
    assert reasons["*.webp"].startswith("no image matches *.webp")
    assert reasons["empty"] == "the folder empty holds no image"
    assert "[y].png" in reasons


def test_folder_loops_end(here: Path) -> None:
    (here / "sub" / "up").symlink_to(here)
    assert len(expand(["sub"], None)) == 2


def test_the_digest_is_of_the_pixels(here: Path) -> None:
    one, two = load_query("b.png", 8, 3), load_query("sub/deep/d.png", 8, 3)
    assert one.digest == two.digest == pixels_digest(one.pixels)
    assert (one.name, two.name) == ("b.png", "sub/deep/d.png")
    assert load_query("b.png", 4, 3).digest != one.digest


def test_one_bad_file_does_not_stop_the_rest(here: Path) -> None:
    (here / "bad.png").write_bytes(b"x")
    (here / "dir.png").mkdir()
    good, bad = load_queries(["a.png", "bad.png", "gone.png", "dir.png", "b.png"], 8, 1)
    assert [query.name for query in good] == ["a.png", "b.png"]
    assert [path for path, _ in bad] == ["bad.png", "gone.png", "dir.png"]
    assert all(reason for _, reason in bad)
    assert good[0].pixels.shape == (1, 8, 8)


def test_heic_and_jpeg_xl_are_never_passed_over(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("pillow_heif", "pillow_jxl", "pillow_jxl.JpegXLImagePlugin"):
        monkeypatch.setitem(sys.modules, name, None)
    image_formats._load.cache_clear()
    (here / "sub" / "e.HEIC").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64))
    (here / "sub" / "f.jxl").write_bytes(b"\xff\x0a" + bytes(64))
    paths = expand(["sub"], None)
    assert paths == ["sub/c.JPG", "sub/deep/d.png", "sub/e.HEIC", "sub/f.jxl"]
    good, bad = load_queries(paths, 8, 1)
    assert len(good) == 2
    assert all("pip install 'guda[images]'" in reason for _, reason in bad)


@pytest.mark.parametrize("argument", ["pipe.png", ".", "*.png"])
def test_a_pipe_does_not_keep_the_others_waiting(here: Path, argument: str) -> None:
    os.mkfifo("pipe.png")
    good, bad = load_queries(expand([argument], None), 8, 1)
    assert [(path.removeprefix("./"), "a pipe" in reason) for path, reason in bad] == [("pipe.png", True)]
    assert bool(good) is (argument != "pipe.png")
