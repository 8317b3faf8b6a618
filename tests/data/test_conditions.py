"""Where the class of a query comes from, and what its digests cover."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from guda_cli.data.classes import PNG_KEY, Classes, Conditions, png_class
from guda_cli.data.images import pixels_digest
from guda_cli.data.queries import Query, load_queries, load_query
from guda_cli.errors import DataError, UsageError

CLASSES = Classes(("cat", "dog", "naïve ☃"), 3)
PIXELS = np.arange(64, dtype=np.uint8).reshape(1, 8, 8)


def image(path: Path, name: str | None = None, form: str = "PNG") -> Path:
    text = PngInfo()
    if name is not None:
        text.add_text(PNG_KEY, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(PIXELS[0]).save(path, form, **({"pnginfo": text} if form == "PNG" else {}))
    return path


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


class TestClasses:
    def test_indices(self) -> None:
        assert [CLASSES.index(name) for name in (*CLASSES.names, None)] == [0, 1, 2, 3]

    def test_no_null_class(self) -> None:
        with pytest.raises(DataError, match="no null class"):
            Classes(("a", "b"), None).index(None)

    def test_unknown(self) -> None:
        with pytest.raises(DataError, match="did you mean 'cat'"):
            CLASSES.index("cta")


class TestSources:
    @pytest.mark.parametrize("name", ["cat", "naïve ☃", None])
    def test_the_text_of_a_png(self, here: Path, name: str | None) -> None:
        path = image(here / "a.png", name)
        assert png_class(path) == name
        assert Conditions(CLASSES).of(str(path)) == name

    @pytest.mark.parametrize("kind", ["metadata.jsonl", "metadata.csv"])
    def test_metadata_beside_the_image(self, here: Path, kind: str) -> None:
        rows = [("a.png", "dog"), ("sub/c.png", "cat")]
        text = (
            "".join(json.dumps({"file_name": f, "class": c, "style": "x"}) + "\n" for f, c in rows)
            if kind.endswith("jsonl")
            else "file_name,class,style\n" + "".join(f"{f},{c},x\n" for f, c in rows)
        )
        (here / kind).write_text(text)
        for name in ("a.png", "b.png", "sub/c.png"):
            image(here / name)
        found = Conditions(CLASSES)
        assert [found.of(name) for name in ("a.png", "b.png", "sub/c.png")] == ["dog", None, "cat"]

    def test_of_a_file_that_is_no_png(self, here: Path) -> None:
        (here / "metadata.csv").write_text("file_name,class\na.jpg,dog\n")
        image(here / "a.jpg", form="JPEG")
        assert Conditions(CLASSES).of("a.jpg") == "dog"

    def test_the_option_wins_then_the_png(self, here: Path) -> None:
        (here / "metadata.csv").write_text("file_name,class\na.png,dog\n")
        image(here / "a.png", "cat")
        assert Conditions(CLASSES).of("a.png") == "cat"
        assert Conditions(CLASSES, "dog").of("a.png") == "dog"

    def test_numbers_are_names(self, here: Path) -> None:
        (here / "metadata.jsonl").write_text('{"file_name": "a.png", "class": 7}\n')
        image(here / "a.png")
        assert Conditions(Classes(("6", "7"), 2)).of("a.png") == "7"

    def test_without_conditions_nothing_is_looked_for(self, here: Path) -> None:
        image(here / "a.png", "cat")
        (here / "metadata.jsonl").write_text("no json")
        assert load_query("a.png", 8, 1).condition is None


class TestErrors:
    def test_an_unknown_option_names_the_nearest(self) -> None:
        with pytest.raises(UsageError, match="did you mean 'dog'"):
            Conditions(CLASSES, "dgo")

    def test_an_unknown_class_in_a_file_stops_only_that_file(self, here: Path) -> None:
        image(here / "a.png", "cta")
        image(here / "b.png", "dog")
        good, bad = load_queries(["a.png", "b.png"], 8, 1, Conditions(CLASSES))
        assert [query.condition for query in good] == ["dog"]
        [(path, why)] = bad
        assert path == "a.png"
        assert "its PNG text" in why
        assert "did you mean 'cat'" in why
        assert "--class" in why

    def test_an_unknown_class_in_metadata(self, here: Path) -> None:
        (here / "metadata.csv").write_text("file_name,class\na.png,dogs\n")
        image(here / "a.png")
        with pytest.raises(DataError) as caught:
            Conditions(CLASSES).of("a.png")
        assert "metadata" in caught.value.why
        assert "did you mean 'dog'" in caught.value.why

    def test_no_class_where_there_is_no_null_class(self, here: Path) -> None:
        image(here / "a.png")
        with pytest.raises(DataError) as caught:
            Conditions(Classes(("cat", "dog"), None)).of("a.png")
        assert "no null class" in caught.value.why
        assert Conditions(Classes(("cat", "dog"), None), "cat").of("a.png") == "cat"

    def test_several_classes(self, here: Path) -> None:
        (here / "metadata.jsonl").write_text('{"file_name": "a.png", "class": ["cat", "dog"]}\n')
        image(here / "a.png")
        with pytest.raises(DataError) as caught:
            Conditions(CLASSES).of("a.png")
        assert "2 classes" in caught.value.why

    @pytest.mark.parametrize("text", ["no json", "[]", '{"file_name": 3}\n'])
    def test_broken_metadata(self, here: Path, text: str) -> None:
        (here / "metadata.jsonl").write_text(text)
        image(here / "a.png")
        with pytest.raises(DataError) as caught:
            Conditions(CLASSES).of("a.png")
        assert "metadata.jsonl" in caught.value.why
        assert "--class" in caught.value.why

    def test_a_damaged_png_has_no_class(self, here: Path) -> None:
        (here / "a.png").write_bytes(b"\x89PNG\r\n\x1a\nrubbish")
        assert png_class(here / "a.png") is None


class TestDigests:
    def query(self, condition: str | None) -> Query:
        return Query("a.png", PIXELS, pixels_digest(PIXELS), condition)

    def test_without_condition_it_is_that_of_the_pixels(self) -> None:
        assert self.query(None).digest == self.query(None).pixels_digest == pixels_digest(PIXELS)

    def test_conditions_give_keys_of_their_own_and_share_the_noise(self) -> None:
        queries = [self.query(name) for name in (None, "cat", "dog", "", "cat\0")]
        assert len({query.digest for query in queries}) == 5
        assert len({query.pixels_digest for query in queries}) == 1
        assert all(len(query.digest) == 64 for query in queries)
        assert self.query("cat").digest == self.query("cat").digest

    def test_they_do_not_depend_on_where_the_class_was_said(
        self, here: Path, png: Callable[..., bytes]
    ) -> None:
        image(here / "a.png", "cat")
        image(here / "b.png")
        one, two = (
            load_query("a.png", 8, 1, Conditions(CLASSES)),
            load_query("b.png", 8, 1, Conditions(CLASSES, "cat")),
        )
        assert one.digest == two.digest != load_query("b.png", 8, 1).digest
