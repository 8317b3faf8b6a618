"""One name, however a system writes it: Unicode forms, encodings of zip files, separators of Windows."""

from __future__ import annotations

import json
import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from unicodedata import normalize

import pytest

from guda_cli.data.classes import Classes, Conditions
from guda_cli.data.prompts import Prompts, read_prompts
from guda_cli.data.queries import expand
from guda_cli.data.sources import read_dataset
from guda_cli.data.styles import read_descriptors
from guda_cli.errors import DataError, UsageError
from guda_cli.sections import DataSpec
from guda_cli.workflow.keys import coalitions, removal

NAMES = ("\u00e9lo\u00efse", "\uac00\ub098", "\u01d6", "\u304c\u3059")  # Latin, Hangul, two accents, kana
Write = Callable[..., Path]


def nfd(text: str) -> str:
    return normalize("NFD", text)


def _spec(path: Path, **changes: object) -> DataSpec:
    return DataSpec(**{"path": str(path), "size": 8, **changes})  # type: ignore[arg-type]


def _fails(action: Callable[[], object]) -> str:
    with pytest.raises((DataError, UsageError)) as caught:
        action()
    return " | ".join((caught.value.message, caught.value.why, caught.value.fix))


@pytest.fixture(params=["folder", "tar", "zip_"])
def pack(request: pytest.FixtureRequest) -> Write:
    """Files as a folder, a tar and a zip."""
    write: Write = request.getfixturevalue(request.param)
    return write


def zip_of(
    path: Path, files: Sequence[tuple[bytes, bytes]], extra: Mapping[bytes, bytes] | None = None
) -> Path:
    """A zip whose names are these bytes, without the flag that says that they are UTF-8."""
    with zipfile.ZipFile(path, "w") as archive:
        for number, (name, data) in enumerate(files):
            info = zipfile.ZipInfo("n" * (len(name) - 1) + chr(ord("a") + number))
            info.extra = (extra or {}).get(name, b"")
            archive.writestr(info, data)
        placed = [(info.header_offset, info.filename) for info in archive.infolist()]
    raw = path.read_bytes()
    for (_, placeholder), (name, _) in zip(placed, files, strict=True):
        raw = raw.replace(placeholder.encode(), name)
    path.write_bytes(raw)
    return path


class TestForms:
    @pytest.mark.parametrize("name", NAMES)
    def test_names_are_composed(self, pack: Write, png: Callable[..., bytes], name: str) -> None:
        files = {f"{nfd(name)}/{nfd(name)}.png": png(0), "cat/0.png": png(1)}
        assert nfd(name) != name
        data = read_dataset(_spec(pack(files)))
        assert data.groups == tuple(sorted((name, "cat")))
        assert f"{name}/{name}.png" in data.names

    @pytest.mark.parametrize("write", [str, nfd])
    @pytest.mark.parametrize("on_disk", [str, nfd])
    def test_metadata_and_files_belong_together(
        self,
        pack: Write,
        png: Callable[..., bytes],
        write: Callable[[str], str],
        on_disk: Callable[[str], str],
    ) -> None:
        rows = [{"file_name": write(f"{name}/0.png"), write("k\u00fcnstler"): write(name)} for name in NAMES]
        files = {on_disk(f"{name}/0.png"): png(i) for i, name in enumerate(NAMES)}
        text = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
        path = pack({**files, "metadata.jsonl": text.encode()})
        for column in ("k\u00fcnstler", nfd("k\u00fcnstler")):
            data = read_dataset(_spec(path, group=(column,), groups=(nfd(NAMES[0]), NAMES[1])))
            assert data.groups == tuple(sorted(NAMES[:2]))

    @pytest.mark.parametrize(
        ("one", "two"),
        [
            ("cat/\u00e9.png", "cat/e\u0301.png"),
            ("\u00e9/0.png", "e\u0301/1.png"),
            ("K/0.png", "\u212a/1.png"),
        ],
    )
    def test_two_names_that_become_one_are_named_both(
        self, pack: Write, png: Callable[..., bytes], two_groups: dict[str, bytes], one: str, two: str
    ) -> None:
        said = _fails(lambda: read_dataset(_spec(pack({**two_groups, one: png(7), two: png(8)}))))
        for name in (one, two):
            assert ascii(name)[1:-1] in said or ascii(name.partition("/")[0]) in said

    def test_the_root_may_be_in_another_form(self, pack: Write, two_groups: dict[str, bytes]) -> None:
        path = pack({f"{nfd(NAMES[0])}/{name}": data for name, data in two_groups.items()})
        assert len(read_dataset(_spec(path, root=NAMES[0]))) == 5

    def test_the_path_may_be_in_another_form(self, folder: Write, two_groups: dict[str, bytes]) -> None:
        path = folder(two_groups, nfd(NAMES[0]))
        assert len(read_dataset(_spec(path.with_name(NAMES[0])))) == 5

    def test_prompts_in_a_file(self, pack: Write, png: Callable[..., bytes]) -> None:
        rows = [{"file_name": f"{name}/0.png", "prompt": f"by {name}"} for name in NAMES]
        text = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
        files = {nfd(f"{name}/0.png"): png(i) for i, name in enumerate(NAMES)}
        path = pack({**files, nfd("\u00fc.jsonl"): text.encode()})
        data = read_dataset(_spec(path, prompts="\u00fc.jsonl"))
        assert set(data.prompts) == {f"by {name}" for name in NAMES}

    def test_queries(self, folder: Write, png: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch) -> None:
        there = nfd("\u00fc/\u00e9.png")
        path = folder({there: png(0)}, "q")
        monkeypatch.chdir(path)
        assert expand(["\u00fc/\u00e9.png"], None) == [there], "its name as the disk has it"
        assert expand(["\u00fc"], None) == [there]
        Path("p.csv").write_text("image,prompt\n\u00fc/\u00e9.png,a\n", encoding="utf-8")
        assert Prompts(table=read_prompts(Path("p.csv"))).all_of(there) == ("a",)
        Path("metadata.jsonl").write_text('{"file_name": "\u00fc/\u00e9.png", "text": "b"}', encoding="utf-8")
        assert Prompts().all_of(there) == ("b",)

    def test_groups_of_commands(self) -> None:
        known = dict.fromkeys((*NAMES, "cat"), 3)
        assert [what.groups for what in removal.of_groups([nfd(NAMES[0])], known)] == [(NAMES[0],)]
        [joint] = removal.of_groups([nfd(f"{NAMES[0]}+{NAMES[1]}")], known)
        assert joint.groups == tuple(sorted(NAMES[:2]))
        assert coalitions.check_players([nfd(NAMES[0]), NAMES[1]], known) == tuple(sorted(NAMES[:2]))
        assert Conditions(Classes(NAMES, None), nfd(NAMES[0])).of("x.png") == NAMES[0]

    def test_descriptors(self, tmp_path: Path) -> None:
        path = tmp_path / "d.json"
        path.write_text(json.dumps({nfd(NAMES[0]): ["thick"]}))
        assert read_descriptors(path) == {NAMES[0]: ("thick",)}
        path.write_text(json.dumps({name: ["thick"] for name in (NAMES[0], nfd(NAMES[0]))}))
        assert "two Unicode forms" in _fails(lambda: read_descriptors(path))


class TestZipNames:
    @pytest.mark.parametrize("form", [str, nfd])
    def test_utf_8_without_the_flag(
        self, tmp_path: Path, png: Callable[..., bytes], form: Callable[[str], str]
    ) -> None:
        """As macOS packs."""
        names = [form(f"{name}/0.png") for name in NAMES]
        rows = "\n".join(json.dumps({"file_name": f"{n}/0.png", "by": n}, ensure_ascii=False) for n in NAMES)
        files = [(name.encode(), png(i)) for i, name in enumerate(names)]
        path = zip_of(tmp_path / "x.zip", [*files, (b"metadata.jsonl", rows.encode())])
        for group in ("folder", "by"):
            data = read_dataset(_spec(path, group=(group,)))
            assert data.groups == tuple(sorted(NAMES))
            assert data.notes == ()

    @pytest.mark.parametrize("encoding", ["cp437", "cp850"])
    def test_dos_names_are_read_as_the_format_has_it_and_told(
        self, tmp_path: Path, png: Callable[..., bytes], encoding: str
    ) -> None:
        files = [
            (f"{name}/0.png".encode(encoding), png(i)) for i, name in enumerate(("\u00e9lo\u00efse", "cat"))
        ]
        data = read_dataset(_spec(zip_of(tmp_path / "x.zip", files)))
        assert data.groups == ("cat", "\u00e9lo\u00efse"), "the letters that both pages have in one place"
        assert "1 name in the archive is no UTF-8" in data.notes[0]

    @pytest.mark.parametrize("encoding", ["cp1252", "shift_jis", "gbk"])
    def test_other_encodings_are_told(self, tmp_path: Path, png: Callable[..., bytes], encoding: str) -> None:
        name = "\u00e9lo\u00efse" if encoding == "cp1252" else "\u65e5\u672c"
        files = [(f"{group}/0.png".encode(encoding), png(i)) for i, group in enumerate((name, "cat"))]
        data = read_dataset(_spec(zip_of(tmp_path / "x.zip", files)))
        assert set(data.groups) == {"cat", normalize("NFC", name.encode(encoding).decode("cp437"))}
        assert "code page 437" in data.notes[0]
        assert "pack it anew with UTF-8 names" in data.notes[0]

    def test_the_unicode_name_of_info_zip_counts(self, tmp_path: Path, png: Callable[..., bytes]) -> None:
        plain = [b"m\xfchle/0.png", b"h\xf6hle/0.png"]
        told = ["m\u00fchle/0.png", "h\u00f6hle/0.png"]
        fields = {
            name: struct.pack("<HHBL", 0x7075, 5 + len(text.encode()), 1, zlib.crc32(name) ^ wrong)
            + text.encode()
            for name, text, wrong in zip(plain, told, (0, 1), strict=True)
        }
        data = read_dataset(
            _spec(zip_of(tmp_path / "x.zip", [(n, png(i)) for i, n in enumerate(plain)], fields))
        )
        assert data.groups == tuple(sorted(("m\u00fchle", b"h\xf6hle".decode("cp437")))), "by its checksum"

    def test_hostile_names_stay_refused(self, tmp_path: Path, png: Callable[..., bytes]) -> None:
        for name in ("../\u00e9.png", "/\u00e9.png", "a/..\\..\\\u00e9.png"):
            path = zip_of(tmp_path / "x.zip", [(name.encode(), png(0)), (b"cat/0.png", png(1))])
            assert "is refused" in _fails(lambda path=path: read_dataset(_spec(path)))  # type: ignore[misc]


class TestBackslashes:
    @pytest.mark.parametrize("kind", ["jsonl", "csv"])
    def test_metadata(self, pack: Write, two_groups: dict[str, bytes], kind: str) -> None:
        names = [name.replace("/", "\\") for name in two_groups]
        lines = (
            [json.dumps({"file_name": name, "by": name[:3]}) for name in names]
            if kind == "jsonl"
            else ["file_name,by", *(f"{name},{name[:3]}" for name in names)]
        )
        path = pack({**two_groups, f"metadata.{kind}": "\r\n".join(lines).encode()})
        assert read_dataset(_spec(path, group=("by",))).counts() == {"cat": 3, "dog": 2}

    def test_metadata_with_dots(self, folder: Write, two_groups: dict[str, bytes]) -> None:
        rows = "\n".join(json.dumps({"file_name": f".\\{n}", "by": n[:3]}) for n in two_groups)
        path = folder({**two_groups, "metadata.jsonl": rows.encode()})
        assert read_dataset(_spec(path, group=("by",))).counts() == {"cat": 3, "dog": 2}

    def test_a_backslash_may_be_part_of_a_name(self, folder: Write, png: Callable[..., bytes]) -> None:
        rows = "\n".join(
            json.dumps({"file_name": n, "by": b}) for n, b in (("a\\b.png", "x"), ("a/b.png", "y"))
        )
        path = folder({"a\\b.png": png(0), "a/b.png": png(1), "metadata.jsonl": rows.encode()})
        data = read_dataset(_spec(path, group=("by",)))
        held = {
            name: data.groups[row.argmax()] for name, row in zip(data.names, data.membership, strict=True)
        }
        assert held == {"a\\b.png": "x", "a/b.png": "y"}

    @pytest.mark.parametrize(
        ("name", "words"),
        [
            ("C:\\pictures\\0.png", "absolute"),
            ("c:/pictures/0.png", "absolute"),
            ("\\\\server\\share\\0.png", "absolute"),
            ("\\0.png", "leads outside"),
            ("..\\0.png", "leads outside"),
            ("a\\..\\..\\0.png", "leads outside"),
        ],
    )
    def test_names_that_lead_outside(
        self, folder: Write, two_groups: dict[str, bytes], name: str, words: str
    ) -> None:
        rows = json.dumps({"file_name": name, "by": "x"})
        path = folder({**two_groups, "metadata.jsonl": rows.encode()})
        said = _fails(lambda: read_dataset(_spec(path, group=("by",))))
        assert "metadata.jsonl, line 1" in said
        assert words in said

    def test_prompts_of_training_images(self, pack: Write, two_groups: dict[str, bytes]) -> None:
        rows = "image,prompt\n" + "".join(n.replace("/", "\\") + ",a b\n" for n in two_groups)
        data = read_dataset(_spec(pack({**two_groups, "p.csv": rows.encode()}), prompts="p.csv"))
        assert set(data.prompts) == {"a b"}

    def test_prompts_of_queries(
        self, folder: Write, png: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(folder({"out/a.png": png(0), "out/b.png": png(1)}, "q"))
        Path("p.jsonl").write_text(json.dumps({"image": "out\\a.png", "prompt": "a"}))
        assert Prompts(table=read_prompts(Path("p.jsonl"))).all_of("out/a.png") == ("a",)
        Path("metadata.jsonl").write_text(json.dumps({"file_name": "out\\b.png", "text": "b"}))
        assert Prompts().all_of(os.path.abspath("out/b.png")) == ("b",)  # noqa: PTH100
        Path("p.jsonl").write_text(json.dumps({"image": "D:\\out\\a.png", "prompt": "a"}))
        assert "line 1: 'D:\\out\\a.png' is an absolute path of Windows" in _fails(
            lambda: read_prompts(Path("p.jsonl"))
        )

    def test_an_archive_that_was_unpacked_without_its_folders(
        self, folder: Write, two_groups: dict[str, bytes]
    ) -> None:
        path = folder({name.replace("/", "\\"): data for name, data in two_groups.items()})
        assert "name the archive itself" in _fails(lambda: read_dataset(_spec(path)))
