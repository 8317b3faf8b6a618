"""What builds the emoji-styles data set, without its packages and its renderer."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from guda_cli.data import emoji_styles
from guda_cli.data.known_sets import emoji_table
from guda_cli.errors import DataError

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared" / "data" / "emoji-styles.tar"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return emoji_styles


@pytest.fixture(scope="module")
def table() -> Mapping[str, Any]:
    return emoji_table()


def package(path: Path, *members: tuple[str, bytes | str]) -> Path:
    """A gzipped tar of files (bytes) and links (text: where to)."""
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            if isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
                archive.addfile(info)
            else:
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return path


ICONS = {
    "width": 32,
    "icons": {"a": {"body": "<a/>"}, "b": {"body": "<b/>", "width": 8}, "c": {"body": "", "hidden": True}},
    "aliases": {"d": {"parent": "e"}, "e": {"parent": "a", "hFlip": True}, "f": {"parent": "f"}},
}
GOOD = (
    ("package/icons.json", json.dumps(ICONS).encode()),
    ("package/info.json", b'{"license": {}}'),
    ("package/package.json", b'{"name": "x", "version": "1.0"}'),
)


class TestPackages:
    def test_only_what_is_needed_is_read(self, script: ModuleType, tmp_path: Path) -> None:
        extra = (("package/../../evil", b"x"), ("/etc/evil", b"x"), ("package/link", "/etc/passwd"))
        found = script.read_package(package(tmp_path / "x.tgz", *extra, *GOOD))
        assert (found.name, found.version, found.icons) == ("x", "1.0", ICONS)
        assert [path.name for path in tmp_path.iterdir()] == ["x.tgz"]

    @pytest.mark.parametrize(
        "members", [GOOD[1:], (("package/icons.json", "/etc/passwd"), *GOOD[1:]), (*GOOD, GOOD[0])]
    )
    def test_links_gaps_and_repeats_are_refused(
        self, script: ModuleType, tmp_path: Path, members: tuple[tuple[str, bytes | str], ...]
    ) -> None:
        with pytest.raises(DataError, match=r"icons\.json"):
            script.read_package(package(tmp_path / "x.tgz", *members))


class TestPictures:
    def test_icons_and_aliases(self, script: ModuleType) -> None:
        svg, mirrored = script.svg_of(ICONS, "a")
        assert 'viewBox="0 0 32 16"' in svg
        assert svg.endswith("<a/></svg>")
        assert not mirrored
        assert script.svg_of(ICONS, "d") == (svg, True)
        assert 'viewBox="0 0 8 16"' in script.svg_of(ICONS, "b")[0]
        assert [script.svg_of(ICONS, name) for name in ("c", "f", "g")] == [None] * 3

    @pytest.mark.parametrize(("colours", "exact"), [(1, True), (256, True), (4096, False)])
    def test_palettes(self, script: ModuleType, colours: int, exact: bool) -> None:
        rng = np.random.Generator(np.random.PCG64(0))
        palette = rng.integers(0, 256, (colours, 3), dtype=np.uint8)
        pixels = palette[np.arange(64 * 64).reshape(64, 64) % colours]
        stored = Image.open(io.BytesIO(script.png_of(Image.fromarray(pixels))))
        assert stored.mode == "P"
        apart = np.abs(np.asarray(stored.convert("RGB"), dtype=int) - pixels).mean()
        assert apart == 0 if exact else 0 < apart < 20

    def test_rendering(self, script: ModuleType) -> None:
        pytest.importorskip("resvg_py")
        icons = {"icons": {"x": {"body": '<path fill="#f00" d="M0 0h8v16H0z"/>'}}}
        pixels = np.asarray(script.render(*script.svg_of(icons, "x")))
        assert pixels.shape == (64, 64, 3)
        assert (pixels[:, :32] == (255, 0, 0)).all()
        assert (pixels[:, 32:] == 255).all()


class TestTable:
    def test_descriptors_can_be_told_apart_in_prompts(
        self, script: ModuleType, table: Mapping[str, Any]
    ) -> None:
        for style in table["styles"].values():
            assert len(set(style["descriptors"])) == 7
            assert not any("," in text for text in style["descriptors"])

    def test_it_speaks_of_its_concepts_only(self, table: Mapping[str, Any]) -> None:
        listed = [concept for concepts in table["objects"].values() for concept in concepts]
        assert len(listed) == len(set(listed)) == 1299
        known = set(listed)
        assert set(table["words"]) <= known
        for style in table["styles"].values():
            assert set(style["icons"]) | set(style["left_out"]) <= known

    def test_no_prompt_names_a_style(self, script: ModuleType, table: Mapping[str, Any]) -> None:
        makers = ["noto", "twemoji", "openmoji", "fluent", "emojione", "fxemoji", "streamline"]
        for style in table["styles"].values():
            assert not any(maker in text for maker in makers for text in style["descriptors"])

    @pytest.mark.shared_data
    def test_prompts_are_those_of_the_shared_archive(
        self, script: ModuleType, table: Mapping[str, Any]
    ) -> None:
        if not SHARED.is_file():
            pytest.skip("no shared data here")
        with tarfile.open(SHARED) as archive:
            member = next(m for m in archive if m.name == "metadata.jsonl")
            file = archive.extractfile(member)
            assert file is not None
            rows = [json.loads(line) for line in file]
        for row in rows:
            words = table["words"].get(row["concept"], row["concept"].replace("-", " "))
            descriptors = table["styles"][row["style"]]["descriptors"]
            assert row["concept"] in table["objects"][row["object"]]
            assert script.prompt_of(row["file_name"], words, descriptors) == row["prompt"]
        assert len(rows) == 11_388
