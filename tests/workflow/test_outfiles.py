"""What commands write never takes the place of a file that guda did not write, and stale files are told."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from guda_cli.errors import DataError
from guda_cli.outfile import is_ours, write
from tests.workflow.fixtures import QUERIES, Cli, save

THEIRS = b"what somebody else wrote"


@pytest.mark.parametrize(
    ("content", "ours"),
    [
        (b"", True),
        (THEIRS, False),
        (b'<!DOCTYPE html>\n<html><head><meta name="generator" content="guda"></head>', True),
        (b"<!DOCTYPE html>\n<html><head></head>", False),
        (b'{"schema": "guda.samples/1"}', True),
        (b'{"schema": "theirs/1"}', False),
        (b'{"images": [], "model": "", "sampler": "ddim", "seed": 0}', True),
        (b'{"images": []', False),
        (b"# Unlearning settings chosen by guda tune on a (oracle seed 0).\nname: x\n", True),
        (b"# mine\nname: x\n", False),
        (b"\x89PNG\r\n\x1a\nbroken", False),
        (b"\xff\xfe\x00", False),
    ],
)
def test_who_wrote_a_file_is_seen_in_it(tmp_path: Path, content: bytes, ours: bool) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    assert is_ours(path) is ours


def test_a_foreign_file_is_left_unless_it_holds_the_same_or_is_given_up(tmp_path: Path) -> None:
    path = tmp_path / "r.html"
    path.write_bytes(THEIRS)
    with pytest.raises(DataError, match="is there already") as error:
        write(path, "new", fix="--html FILE")
    assert error.value.fix == "--html FILE"
    assert "--force overwrites it" in error.value.why
    assert path.read_bytes() == THEIRS
    write(path, THEIRS)
    write(path, "new", force=True)
    assert path.read_text() == "new"
    with pytest.raises(DataError, match="is there already"):
        write(tmp_path, "new")


class TestMaps:
    def test_the_images_themselves_are_never_replaced(self, cli: Cli, project: Path) -> None:
        before = {path.name: path.read_bytes() for path in Path("q").glob("*.png")}
        cli("score", "q", "--map", "q")
        assert {name: Path("q", name).read_bytes() for name in before} == before
        maps = sorted(path.name for path in Path("q").glob("*.map.png"))
        assert maps == [f"{i:05d}.map.png" for i in range(QUERIES)]
        again = cli("score", "q", "--json")
        assert len(again.documents) == QUERIES, "maps are no queries"
        cli("score", "q", "--map", "q")  # guda's own maps are made anew

    def test_a_foreign_file_stops_the_command_before_any_work(self, cli: Cli, project: Path) -> None:
        foreign = save(Path("m/00001.map.png"), np.zeros((8, 8)))
        before = foreign.read_bytes()
        done = cli("score", "q", "--map", "m", "--seed", 7, code=3)
        assert "m/00001.map.png is there already" in done.stderr
        assert "--force overwrites it\n  try: guda score q --seed 7 --map FOLDER\n" in done.stderr
        assert foreign.read_bytes() == before
        assert not done.stdout
        assert len(list(Path("m").iterdir())) == 1
        cli("score", "q", "--map", "m", "--force")
        assert foreign.read_bytes() != before

    def test_a_map_in_place_of_its_own_image(self, cli: Cli, project: Path) -> None:
        foreign = save(Path("p.png"), np.full((8, 8), 9))
        before = foreign.read_bytes()
        assert "p.png is there already" in cli("score", "p.png", "--map", "p.png", code=3).stderr
        assert foreign.read_bytes() == before
        assert "maps are PNG files" in cli("score", "p.png", "--map", "p.jpg", code=2).stderr

    def test_a_map_in_place_of_an_image_that_guda_drew(self, cli: Cli, project: Path) -> None:
        save(Path("other.png"), np.full((8, 8), 9))
        before = Path("q/00000.png").read_bytes()
        for images in (["q/00000.png"], ["q/00000.png", "--force"], ["q/../q/00000.png", "--force"]):
            done = cli("score", *images, "--map", "q/00000.png", code=3)
            assert "it is an image to be scored" in done.stderr
        done = cli("score", "other.png", "--map", "q/00000.png", code=3)
        assert "it is an image that guda drew; --force overwrites it" in done.stderr
        assert "guda drew" in cli("report", "--html", "q/00000.png", code=3).stderr
        assert "guda drew" in cli("train", "--sheet", "q/00000.png", code=3).stderr
        assert Path("q/00000.png").read_bytes() == before


class TestSamples:
    def test_foreign_images_and_manifests_are_left(self, cli: Cli, project: Path) -> None:
        foreign = save(Path("s/00001.png"), np.zeros((8, 8)))
        before = foreign.read_bytes()
        assert "s/00001.png is there already" in cli("sample", "-n", 2, "--out", "s", code=3).stderr
        assert [path.name for path in Path("s").iterdir()] == ["00001.png"]
        assert foreign.read_bytes() == before
        Path("t").mkdir()
        Path("t/samples.json").write_text("[1, 2]")
        assert "t/samples.json is there already" in cli("sample", "-n", 2, "--out", "t", code=3).stderr
        cli("sample", "-n", 2, "--out", "t", "--force")
        assert json.loads(Path("t/samples.json").read_text())["schema"] == "guda.samples/1"

    def test_fewer_of_the_same_drawing_leave_the_others_listed(self, cli: Cli, project: Path) -> None:
        cli("sample", "-n", 6, "--out", "s")
        many = json.loads(Path("s/samples.json").read_text())
        pictures = {path.name: path.read_bytes() for path in Path("s").glob("*.png")}
        done = cli("sample", "-n", 2, "--out", "s")
        assert json.loads(Path("s/samples.json").read_text()) == many
        assert {path.name: path.read_bytes() for path in Path("s").glob("*.png")} == pictures
        assert "earlier drawing" not in done.stderr

    def test_those_of_another_drawing_are_told(self, cli: Cli, project: Path) -> None:
        cli("sample", "-n", 6, "--out", "s")
        done = cli("sample", "-n", 2, "--out", "s", "--seed", 9)
        assert "4 images of an earlier drawing are still in s: 00002.png and on" in done.stderr
        assert json.loads(Path("s/samples.json").read_text())["images"] == ["00000.png", "00001.png"]


@pytest.mark.parametrize("there", ["page", "document", "recipe", "map", "drawn"])
@pytest.mark.parametrize("new", ["page", "document", "recipe", "map", "drawn"])
def test_what_guda_writes_takes_the_place_of_its_own_kind_alone(tmp_path: Path, there: str, new: str) -> None:
    def content(kind: str, number: int) -> bytes:
        if kind in ("map", "drawn"):
            text = PngInfo()
            text.add_text("guda:sample" if kind == "drawn" else "Software", "guda")
            Image.new("L", (8, 8), number).save(buffer := io.BytesIO(), "PNG", pnginfo=text)
            return buffer.getvalue()
        return {
            "page": f'<!DOCTYPE html>\n<html><head><meta name="generator" content="guda"></head>{number}',
            "document": f'{{"schema": "guda.samples/1", "n": {number}}}',
            "recipe": f"# Settings chosen by guda tune.\nname: x{number}\n",
        }[kind].encode()

    path = tmp_path / "file"
    path.write_bytes(content(there, 1))
    if new == there:
        write(path, content(new, 2))
        assert path.read_bytes() == content(new, 2)
        return
    with pytest.raises(DataError, match="is there already"):
        write(path, content(new, 2))
    assert path.read_bytes() == content(there, 1)


def test_pages_are_made_anew_and_foreign_ones_left(cli: Cli, project: Path) -> None:
    cli("score", "q")
    cli("report", "--html", "r.html")
    cli("report", "--html", "r.html", "--top", 3)
    Path("theirs.html").write_bytes(THEIRS)
    done = cli("report", "--html", "theirs.html", code=3)
    assert "theirs.html is there already" in done.stderr
    assert not done.stdout
    assert Path("theirs.html").read_bytes() == THEIRS
    cli("report", "--html", "theirs.html", "--force")
    with Image.open("q/00000.png") as image:
        assert image.info, "samples say what they were drawn from"
