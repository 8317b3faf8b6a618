"""Where the prompts of query images come from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from guda_cli.data.prompts import Prompts, read_prompts
from guda_cli.data.queries import load_query
from guda_cli.errors import DataError
from tests.data.pngs import png

THEIRS = "theirs\nSteps: 20, Sampler: Euler a, CFG scale: 7"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


class TestOrder:
    def test_the_first_source_counts(self, here: Path) -> None:
        png(here / "a.png", ours="ours", parameters=THEIRS)
        table = {"a.png": ("listed", "listed too")}
        assert Prompts().of("a.png") == "ours"
        (here / "metadata.jsonl").write_text('{"file_name": "a.png", "text": " beside "}\n')
        assert Prompts().of("a.png") == "beside"
        assert Prompts(table=table).all_of("a.png") == ("listed", "listed too")
        both = Prompts(["said", "also", "said"], table)
        assert both.all_of("a.png") == ("said", "also")
        assert both.of("a.png") == "said"

    def test_no_prompt_is_the_empty_one(self, here: Path) -> None:
        png(here / "a.png")
        assert Prompts().of("a.png") is None
        assert Prompts().all_of("a.png") == ("",)

    @pytest.mark.parametrize("found", [Prompts([""]), Prompts(table={"a.png": ("",)})])
    def test_an_empty_prompt_that_is_named_counts(self, here: Path, found: Prompts) -> None:
        png(here / "a.png", ours="ours")
        assert found.of("a.png") is None

    def test_broken_metadata_name_the_way_out(self, here: Path) -> None:
        png(here / "a.png", ours="ours")
        (here / "metadata.jsonl").write_text("no json")
        with pytest.raises(DataError) as caught:
            Prompts().of("a.png")
        assert "metadata.jsonl" in caught.value.why
        assert "--prompt TEXT" in caught.value.why
        assert Prompts(["x"]).of("a.png") == "x"

    def test_metadata_above_the_image_s_folder(self, here: Path) -> None:
        (here / "flat" / "cats").mkdir(parents=True)
        png(here / "flat" / "cats" / "a.png")
        rows = [{"file_name": "flat/cats/a.png", "prompt": "a flat cat"}, {"file_name": "a.png", "text": "b"}]
        (here / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
        assert Prompts().of("flat/cats/a.png") == "a flat cat"
        (here / "flat" / "metadata.csv").write_text("file_name,text\ncats/a.png,nearer\n")
        assert Prompts().of(str(here / "flat" / "cats" / "a.png")) == "nearer"
        (here / "flat" / "cats" / "metadata.jsonl").write_text('{"file_name": "b.png", "text": "other"}\n')
        assert Prompts().of("flat/cats/a.png") == "nearer"

    def test_broken_metadata_above_are_passed_over(self, here: Path) -> None:
        (here / "cats").mkdir()
        png(here / "cats" / "a.png", ours="ours")
        (here / "metadata.jsonl").write_text("no json")
        found = Prompts()
        assert found.of("cats/a.png") == "ours"
        png(here / "a.png")
        with pytest.raises(DataError):
            found.of("a.png")

    def test_metadata_far_above_are_another_s(self, here: Path) -> None:
        deep = here.joinpath(*"abcd")
        deep.mkdir(parents=True)
        png(deep / "x.png")
        (here / "metadata.jsonl").write_text('{"file_name": "a/b/c/d/x.png", "text": "far"}\n')
        assert Prompts().of("a/b/c/d/x.png") is None
        (here / "a" / "metadata.jsonl").write_text('{"file_name": "b/c/d/x.png", "text": "near"}\n')
        assert Prompts().of("a/b/c/d/x.png") == "near"
        assert Prompts().of("a/b/c/../c/d/x.png") == "near"

    def test_queries_take_it_as_their_condition(self, here: Path) -> None:
        png(here / "a.png", ours="a cat")
        told, empty = (load_query("a.png", 8, 3, found) for found in (Prompts(), Prompts([""])))
        assert told.prompts == ("a cat",)
        assert empty.prompts == ("",)
        assert told.pixels_digest == empty.pixels_digest == empty.digest != told.digest


class TestTable:
    def test_rows_of_one_image_are_several_prompts(self, here: Path) -> None:
        (here / "p.csv").write_text('image,prompt\na.png,"x, y"\n./a.png,z\nb.png,\n')
        found = Prompts(table=read_prompts(Path("p.csv")))
        assert found.all_of("a.png") == ("x, y", "z")
        assert found.all_of(str(here / "a.png")) == ("x, y", "z")
        assert found.all_of("b.png") == ("",)

    def test_paths_count_from_the_file_or_as_typed(self, here: Path) -> None:
        (here / "out").mkdir()
        rows = [{"file_name": "a.png", "text": "below"}, {"image": "out/b.png", "prompt": "typed"}]
        (here / "out" / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        found = Prompts(table=read_prompts(here / "out" / "p.jsonl"))
        for name in ("a.png", "b.png"):
            png(here / "out" / name)
        assert [found.of(f"out/{name}") for name in ("a.png", "b.png")] == ["below", "typed"]

    @pytest.mark.parametrize(
        ("name", "text", "words"),
        [
            ("p.csv", "", "no columns"),
            ("p.csv", "image,label\na,b\n", "no columns"),
            ("p.csv", "image,prompt\n", "holds no prompts"),
            ("p.csv", "image,prompt\na,b,c\n", "line 2"),
            ("p.csv", "image,prompt\n,b\n", "names no image"),
            ("p.jsonl", '{"image": "a"}\n', "line 1 names no prompt"),
            ("p.jsonl", '{"image": 3, "prompt": "x"}\n', "names no image"),
            ("p.jsonl", '{"image": "a", "prompt": ["x"]}\n', "is no text"),
            ("p.jsonl", '{"image": "a", "prompt": "x"}\nno json\n', "line 2 is not JSON"),
        ],
    )
    def test_broken_tables(self, tmp_path: Path, name: str, text: str, words: str) -> None:
        (tmp_path / name).write_text(text)
        with pytest.raises(DataError, match=words):
            read_prompts(tmp_path / name)

    def test_a_missing_table(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="cannot read"):
            read_prompts(tmp_path / "none.csv")
