"""Values in metadata and files of prompts: missing ones, impossible ones, and how their text is written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from guda_cli.data.prompts import Prompts, read_prompts
from guda_cli.data.sources import read_dataset, rows
from guda_cli.data.styles import read_descriptors
from guda_cli.errors import DataError
from guda_cli.sections import DataSpec
from tests.data.pngs import png as draw

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n"
Write = Callable[..., Path]


def _spec(path: Path, **changes: object) -> DataSpec:
    return DataSpec(**{"path": str(path), "size": 8, **changes})  # type: ignore[arg-type]


def _fails(action: Callable[[], object]) -> str:
    with pytest.raises(DataError) as caught:
        action()
    return " | ".join((caught.value.message, caught.value.why, caught.value.fix))


@pytest.fixture
def jsonl(folder: Write, png: Callable[..., bytes]) -> Callable[..., Path]:
    """Three images with these lines of `by`, as JSON, beside `file_name`."""

    def make(*values: str, key: str = "by") -> Path:
        lines = [f'{{"file_name": "{i}.png", "{key}": {value}}}' for i, value in enumerate(values)]
        files = {f"{i}.png": png(i) for i in range(len(values))}
        return folder({**files, "metadata.jsonl": "\n".join(lines).encode()})

    return make


@pytest.fixture
def table(folder: Write, png: Callable[..., bytes]) -> Callable[[bytes], Path]:
    """Images 0, 1 and 2 with this metadata.csv."""
    return lambda data: folder({**{f"{i}.png": png(i) for i in range(3)}, "metadata.csv": data})


MISSING = ("null", "NaN", '""', '" "', "[]", '"nan"', '"NaN"', '"None"', '"null"', '"NA"', '"<NA>"', '"N/A"')


class TestGroups:
    @pytest.mark.parametrize("value", [*MISSING, "[null]", "[NaN]"])
    def test_what_is_missing_is_no_group(self, jsonl: Callable[..., Path], value: str) -> None:
        said = _fails(lambda: read_dataset(_spec(jsonl('"a"', value, '"b"'), group=("by",))))
        assert "1 image has no group: 1.png" in said
        assert "line 2 has nothing in by" in said

    def test_what_is_missing_in_a_list_is_left_out(self, jsonl: Callable[..., Path]) -> None:
        path = jsonl('["a", null]', '["a", NaN, "b"]', '["b", "nan"]')
        assert read_dataset(_spec(path, group=("by",))).counts() == {"a": 2, "b": 2}

    @pytest.mark.parametrize("cell", ["", "nan", "NaN", "None", "NULL", "NA", "<NA>", "#N/A", " "])
    def test_cells_as_pandas_reads_them(self, table: Callable[[bytes], Path], cell: str) -> None:
        path = table(f"file_name,by\n0.png,a\n1.png,{cell}\n2.png,b\n".encode())
        assert "line 3 has nothing in by" in _fails(lambda: read_dataset(_spec(path, group=("by",))))

    @pytest.mark.parametrize("value", ['"none"', '"Nan Goldin"', '"no"', '"na"', "0", "false", '"infinity"'])
    def test_words_are_groups(self, jsonl: Callable[..., Path], value: str) -> None:
        data = read_dataset(_spec(jsonl('"a"', value, '"b"'), group=("by",)))
        assert set(data.groups) == {"a", "b", json.loads(value) if value[0] == '"' else value}

    @pytest.mark.parametrize(
        ("value", "what"),
        [
            ('{"name": "x"}', "an object"),
            ('[["x"], "y"]', "a list within a list"),
            ('["x", {"y": 1}]', "an object"),
            ("Infinity", "no bound (inf)"),
            ("-Infinity", "no bound (-inf)"),
            ("1e999", "no bound (inf)"),
            ("[1, 1e999]", "no bound (inf)"),
            ('"inf"', "no bound (inf)"),
        ],
    )
    def test_what_is_no_group_names_file_line_and_column(
        self, jsonl: Callable[..., Path], value: str, what: str
    ) -> None:
        said = _fails(lambda: read_dataset(_spec(jsonl('"a"', value, '"b"'), group=("by",))))
        assert "metadata.jsonl, line 2, column 'by': the value for 1.png must be text" in said
        assert what in said

    def test_numbers_without_bound_in_cells(self, table: Callable[[bytes], Path]) -> None:
        path = table(b"file_name,by\n0.png,a\n1.png,-inf\n2.png,b\n")
        said = _fails(lambda: read_dataset(_spec(path, group=("by",))))
        assert "metadata.csv, line 3, column 'by'" in said

    def test_what_is_common_has_the_same_rules(self, folder: Write, two_groups: dict[str, bytes]) -> None:
        lines = [
            json.dumps({"file_name": n, "of": float("nan") if n[-5] == "2" else n[-5]}) for n in two_groups
        ]
        path = folder({**two_groups, "metadata.jsonl": "\n".join(lines).encode()})
        assert read_dataset(_spec(path, common="of")).counts() == {"cat": 2, "dog": 2}

    def test_a_number_too_long_for_json(self, jsonl: Callable[..., Path]) -> None:
        said = _fails(lambda: read_dataset(_spec(jsonl('"a"', "1" * 5000, '"b"'), group=("by",))))
        assert "line 2 is not JSON" in said


class TestPrompts:
    @pytest.mark.parametrize("value", [*MISSING[:2], *MISSING[5:]])
    def test_what_is_missing_is_no_prompt(
        self, folder: Write, two_groups: dict[str, bytes], value: str
    ) -> None:
        rows = f'{{"file_name": "cat/0.png", "prompt": {value}, "text": "a cat"}}\n'
        rows += f'{{"file_name": "cat/1.png", "prompt": {value}}}'
        data = read_dataset(_spec(folder({**two_groups, "metadata.jsonl": rows.encode()})))
        assert data.prompts[:2] == ("a cat", None)

    def test_a_number_without_bound_is_no_text(self, folder: Write, two_groups: dict[str, bytes]) -> None:
        rows = b'{"file_name": "cat/0.png", "prompt": 1e999}'
        said = _fails(lambda: read_dataset(_spec(folder({**two_groups, "metadata.jsonl": rows}))))
        assert "metadata.jsonl, line 1, column 'prompt': the prompt of cat/0.png is no text" in said
        rows = b'{"file_name": "cat/0.png", "prompt": -Infinity}'
        path = folder({**two_groups, "p.jsonl": rows}, "own")
        assert "line 1: the prompt of cat/0.png is no text" in _fails(
            lambda: read_dataset(_spec(path, prompts="p.jsonl"))
        )

    def test_in_tables_for_queries_it_is_the_empty_prompt(self, tmp_path: Path) -> None:
        path = tmp_path / "p.jsonl"
        path.write_text('{"image": "a.png", "prompt": NaN}\n{"image": "b.png", "prompt": "nan"}')
        assert Prompts(table=read_prompts(path)).all_of(str(tmp_path / "a.png")) == ("",)
        assert Prompts(table=read_prompts(path)).all_of(str(tmp_path / "b.png")) == ("",)
        path = tmp_path / "p.csv"
        path.write_text("image;prompt\na.png;nan\nb.png;x, y\n")
        assert Prompts(table=read_prompts(path)).all_of(str(tmp_path / "a.png")) == ("",)
        assert Prompts(table=read_prompts(path)).all_of(str(tmp_path / "b.png")) == ("x, y",)

    def test_beside_a_query(self, tmp_path: Path) -> None:
        draw(tmp_path / "a.png", ours="from the file")
        (tmp_path / "metadata.csv").write_text("file_name,prompt\na.png,nan\n")
        assert Prompts().all_of(str(tmp_path / "a.png")) == ("from the file",)


class TestHalvesOfSurrogates:
    @pytest.mark.parametrize("value", ['"\\ud800"', '"a \\uDC00 b"', '["x", "\\udfff"]', '{"x": "\\ud800"}'])
    @pytest.mark.parametrize("key", ["by", "prompt", "other"])
    def test_in_metadata(self, jsonl: Callable[..., Path], key: str, value: str) -> None:
        said = _fails(lambda: read_dataset(_spec(jsonl('"a"', value, '"b"', key=key), group=("by",))))
        assert f"metadata.jsonl, line 2, column '{key}'" in said
        assert "surrogate" in said

    def test_in_the_name_of_a_column_or_a_file(self, jsonl: Callable[..., Path], folder: Write) -> None:
        said = _fails(lambda: read_dataset(_spec(jsonl('"a"', '"b"', key="\\ud800"), group=("by",))))
        assert "column '\\ud800'" in said
        path = folder({"metadata.jsonl": b'{"file_name": "\\udc80.png", "by": 1}'})
        assert "column 'file_name'" in _fails(lambda: read_dataset(_spec(path, group=("by",))))

    def test_pairs_are_characters(self, jsonl: Callable[..., Path]) -> None:
        path = jsonl('"\\ud83d\\ude00"', '"a\\\\ud800"')
        assert read_dataset(_spec(path, group=("by",))).groups == ("a\\ud800", "\U0001f600")

    def test_elsewhere(self, tmp_path: Path) -> None:
        path = tmp_path / "x.jsonl"
        path.write_text('{"image": "a.png", "prompt": "\\ud83d"}')
        assert "line 1, column 'prompt'" in _fails(lambda: read_prompts(path))
        path.write_text('{"cat": ["\\ud83d"]}')
        assert "group 'cat'" in _fails(lambda: read_descriptors(path))


class TestText:
    @pytest.mark.parametrize("mark", [",", ";", "\t"])
    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
    @pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
    def test_tables_of_spreadsheets(
        self, table: Callable[[bytes], Path], tmp_path: Path, mark: str, encoding: str, end: str
    ) -> None:
        cells = [("file_name", "by", "prompt"), *((f"{i}.png", f"\u00e9{i}", '"a, b; c"') for i in range(3))]
        text = end.join(mark.join(row) for row in cells)
        data = read_dataset(_spec(table(text.encode(encoding)), group=("by",)))
        assert data.groups == ("\u00e90", "\u00e91", "\u00e92")
        assert set(data.prompts) == {"a, b; c"}
        (tmp_path / "p.csv").write_bytes(text.encode(encoding))
        assert read_prompts(tmp_path / "p.csv")["1.png"] == ("a, b; c",)

    @pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-be", "utf-32"])
    def test_json_lines(self, folder: Write, png: Callable[..., bytes], encoding: str) -> None:
        text = "".join(f'{{"file_name": "{i}.png", "by": "\u00e9{i}"}}\r\n\r\n' for i in range(2))
        text = "\ufeff" + text if encoding == "utf-16-be" else text
        path = folder({"0.png": png(0), "1.png": png(1), "metadata.jsonl": text.encode(encoding)})
        assert read_dataset(_spec(path, group=("by",))).groups == ("\u00e90", "\u00e91")

    @pytest.mark.parametrize(
        "text",
        [
            "sep=;\nfile_name;by\n0.png;x\n1.png;y\n2.png;y",
            '"file_name";"a, b";"by"\n0.png;;x\n1.png;;y\n2.png;;y',
            " file_name , by \n0.png,x\n1.png,y\n2.png,y",
            "\nfile_name,by,\n0.png,x,\n1.png,y,\n2.png,y,,",
            ",file_name,by\n0,0.png,x\n1,1.png,y\n2,2.png,y",
        ],
        ids=["sep", "a comma in a name", "spaces", "trailing", "an index"],
    )
    def test_ways_of_writing_tables(self, table: Callable[[bytes], Path], text: str) -> None:
        assert read_dataset(_spec(table(text.encode()), group=("by",))).counts() == {"x": 1, "y": 2}

    def test_line_numbers(self, table: Callable[[bytes], Path]) -> None:
        path = table(b'file_name,by\n0.png,"x\ny"\n\n1.png,z\n2.png,\n')
        assert "line 6 has nothing in by" in _fails(lambda: read_dataset(_spec(path, group=("by",))))
        path = table(b"sep=,\nfile_name,by\n0.png,x\n0.png,y\n")
        said = _fails(lambda: read_dataset(_spec(path, group=("by",))))
        assert "line 4: 0.png has a row already, in line 3" in said

    @pytest.mark.parametrize(
        ("data", "words"),
        [
            ("file_name,by\nm\u00fchle.png,x\n".encode("cp1252"), "not UTF-8 text"),
            (b"\xff\xfef", "not UTF-16 text"),
            ("file_name,by\n".encode("utf-16-le"), "UTF-16 without a byte order mark"),
            (POINTER, "git lfs pull"),
            (b"file_name,by,by\n0.png,x,y\n", "two columns 'by'"),
            ("file_name,\u00e9,e\u0301\n0.png,x,y\n".encode(), "two columns '\u00e9'"),
        ],
    )
    def test_texts_that_are_refused(self, table: Callable[[bytes], Path], data: bytes, words: str) -> None:
        said = _fails(lambda: read_dataset(_spec(table(data), group=("by",))))
        assert "metadata.csv" in said
        assert words in said

    def test_two_fields_of_one_name(self, folder: Write) -> None:
        row = '{"file_name": "a.png", "\u00e9": 1, "e\u0301": 2}'.encode()
        path = folder({"a.png": b"", "metadata.jsonl": row})
        assert "line 1 has two fields of one name" in _fails(lambda: read_dataset(_spec(path)))

    def test_bounds(self, folder: Write, png: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch) -> None:
        """Of all files together, and before any is read."""
        row = b'{"file_name": "0.png"}\n'
        path = folder({f"{g}/{n}": d for g in "ab" for n, d in (("0.png", png(0)), ("metadata.jsonl", row))})
        monkeypatch.setattr(rows, "MOST_BYTES", 2 * len(row))
        assert len(read_dataset(_spec(path))) == 2
        monkeypatch.setattr(rows, "MOST_BYTES", 2 * len(row) - 1)
        assert "a/metadata.jsonl, b/metadata.jsonl: 46 B are more than" in _fails(
            lambda: read_dataset(_spec(path))
        )
        (path / "p.jsonl").write_bytes(row * 3)
        assert "are more than" in _fails(lambda: read_prompts(path / "p.jsonl"))

    def test_too_many_lines(self, folder: Write, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(rows, "MOST_LINES", 10)
        path = folder({"a.png": b"", "metadata.jsonl": b"\n" * 11})
        assert "more than 10 lines" in _fails(lambda: read_dataset(_spec(path)))

    @pytest.mark.parametrize("name", ["metadata.jsonl", "metadata.csv"])
    def test_a_line_too_long(self, folder: Write, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        """What it holds would be taken apart at once."""
        monkeypatch.setattr(rows, "LONGEST", 40)
        text = '{"file_name": "a.png"}\n' if name.endswith("l") else "file_name,x\n"
        text += f'{{"file_name": "b.png", "x": "{30 * "y"}"}}' if name.endswith("l") else "b.png," + 40 * "y"
        path = folder({"a.png": b"", name: text.encode()})
        assert f"{name}, line 2 has more than 40 characters" in _fails(lambda: read_dataset(_spec(path)))
