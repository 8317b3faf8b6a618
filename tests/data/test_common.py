"""data.common, data.prompts and data.descriptors: what a folder or archive says about its images."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from guda_cli.data.dataset import from_bytes, make_dataset, to_bytes
from guda_cli.data.sources import fingerprint, read_dataset
from guda_cli.errors import DataError
from guda_cli.sections import DataSpec
from guda_cli.settings.reading import apply_sets, resolve_path

Write = Callable[..., Path]


def spec_of(path: Path, **changes: object) -> DataSpec:
    return DataSpec(**{"path": str(path), "size": 8, **changes})  # type: ignore[arg-type]


def fails(spec: DataSpec) -> str:
    with pytest.raises(DataError) as caught:
        read_dataset(spec)
    return " | ".join((caught.value.message, caught.value.why, caught.value.fix))


def lines(*rows: Mapping[str, object]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


@pytest.fixture
def three_styles(png: Callable[..., bytes]) -> dict[str, bytes]:
    """Styles a and b have cat and dog, c has cat only; eel is in a alone."""
    shown = [
        ("a", "cat"),
        ("a", "dog"),
        ("a", "eel"),
        ("b", "cat"),
        ("b", "dog"),
        ("c", "cat"),
        ("c", "cat2"),
    ]
    rows = [{"file_name": f"{s}/{thing}.png", "thing": thing.rstrip("2")} for s, thing in shown]
    files = {row["file_name"]: png(i) for i, row in enumerate(rows)}
    return {**files, "metadata.jsonl": lines(*rows)}


class TestCommon:
    def test_only_what_every_group_shows_stays(self, folder: Write, three_styles: dict[str, bytes]) -> None:
        ds = read_dataset(spec_of(folder(three_styles), common="thing"))
        assert ds.names == ("a/cat.png", "b/cat.png", "c/cat.png", "c/cat2.png")
        assert ds.notes == ("3 images were left out: their thing is not in every group (data.common)",)

    def test_groups_are_chosen_afterwards(self, tar: Write, three_styles: dict[str, bytes]) -> None:
        ds = read_dataset(spec_of(tar(three_styles), common="thing", groups=("a", "b")))
        assert ds.names == ("a/cat.png", "b/cat.png")

    def test_an_image_with_several_values_stays_for_one(
        self, folder: Write, png: Callable[..., bytes]
    ) -> None:
        rows = ({"file_name": "a/0.png", "t": ["x", "y"]}, {"file_name": "b/0.png", "t": "y"})
        files = {"a/0.png": png(0), "a/1.png": png(2), "b/0.png": png(1), "metadata.jsonl": lines(*rows)}
        assert read_dataset(spec_of(folder(files), common="t")).names == ("a/0.png", "b/0.png")

    def test_nothing_is_common(self, folder: Write, three_styles: dict[str, bytes]) -> None:
        files = {name: data for name, data in three_styles.items() if not name.startswith("b/cat")}
        text = fails(spec_of(folder(files), common="thing"))
        assert "no value of 'thing' occurs in every group" in text
        assert "there are 3 groups; the most widespread, 'cat', is in 2" in text

    def test_unknown_column(
        self, folder: Write, three_styles: dict[str, bytes], png: Callable[..., bytes]
    ) -> None:
        path = folder(three_styles)
        for key in ("common", "descriptors"):
            text = fails(spec_of(path, **{key: "thin"}))
            assert "did you mean 'thing'" in text
            assert f"data.{key}" in text
        text = fails(spec_of(folder({"a/0.png": png(0), "b/0.png": png(1)}, "bare"), common="thing"))
        assert "there are no metadata" in text

    @pytest.mark.parametrize("key", ["common", "prompts", "descriptors"])
    def test_packed_sources_have_no_metadata(self, key: str) -> None:
        text = fails(DataSpec(source="digits", size=8, channels=1, **{key: "x"}))  # type: ignore[arg-type]
        assert f"data.{key}" in text


class TestCanvas:
    """The layout `<Style>/<Object>/<id>.jpg` with prompts in a JSON-lines file."""

    @pytest.fixture
    def canvas(self, png: Callable[..., bytes]) -> dict[str, bytes]:
        names = [f"{s}/{o}/{i}.jpg" for s in ("Van_Gogh", "Monet") for o in ("Cats", "Dogs") for i in (1, 2)]
        return {name: png(k, format="JPEG") for k, name in enumerate(names)}

    def prompts(self, canvas: Mapping[str, bytes], key: str = "file_name", text: str = "prompt") -> bytes:
        return lines(*({key: name, text: f"a picture of {name.split('/')[1]}"} for name in canvas))

    @pytest.mark.parametrize("kind", ["folder", "tar", "zip_"])
    @pytest.mark.parametrize(
        ("key", "text"), [("file_name", "prompt"), ("image", "text"), ("path", "caption")]
    )
    def test_rows_count_from_the_top(
        self, canvas: dict[str, bytes], kind: str, key: str, text: str, request: pytest.FixtureRequest
    ) -> None:
        write = request.getfixturevalue(kind)
        path = write({**canvas, "prompts.jsonl": self.prompts(canvas, key, text)})
        ds = read_dataset(spec_of(path, prompts="prompts.jsonl"))
        assert ds.groups == ("Monet", "Van_Gogh")
        assert dict(zip(ds.names, ds.prompts, strict=True))["Monet/Dogs/2.jpg"] == "a picture of Dogs"
        assert None not in ds.prompts
        assert ds.notes == ()

    @pytest.mark.parametrize("place", ["set/texts/p.jsonl", "texts/p.jsonl"])
    def test_below_a_root(self, canvas: dict[str, bytes], tar: Write, place: str) -> None:
        files = {f"set/{name}": data for name, data in canvas.items()}
        path = tar({**files, "set/texts/p.jsonl": self.prompts(canvas)})
        ds = read_dataset(spec_of(path, root="set", prompts=place))
        assert ds.prompts.count("a picture of Cats") == 4

    def test_rows_may_count_from_the_file(self, canvas: dict[str, bytes], folder: Write) -> None:
        rows = lines(*({"file_name": f"../{name}", "prompt": name} for name in canvas))
        ds = read_dataset(spec_of(folder({**canvas, "texts/p.jsonl": rows}), prompts="texts/p.jsonl"))
        assert ds.prompts == ds.names

    @pytest.mark.parametrize("prefix", ["", "set/"])
    def test_a_file_of_its_own(
        self, canvas: dict[str, bytes], folder: Write, tmp_path: Path, prefix: str
    ) -> None:
        path = folder(canvas)
        rows = lines(*({"file_name": prefix + name, "prompt": name} for name in canvas))
        (tmp_path / "p.jsonl").write_bytes(rows)
        spec = spec_of(path, prompts=str(tmp_path / "p.jsonl"))
        assert read_dataset(spec).prompts == read_dataset(spec).names
        before = fingerprint(spec)
        os.utime(tmp_path / "p.jsonl", (5, 5))
        assert fingerprint(spec) != before

    def test_gaps_are_noted_and_the_metadata_do_not_fill_them(
        self, canvas: dict[str, bytes], folder: Write
    ) -> None:
        names = sorted(canvas)
        rows = lines({"file_name": names[0], "prompt": "x"}, {"file_name": "gone.jpg", "prompt": "y"})
        other = lines({"file_name": names[1], "prompt": "not this"})
        files = {**canvas, "p.jsonl": rows, "metadata.jsonl": other}
        ds = read_dataset(spec_of(folder(files), prompts="p.jsonl"))
        assert ds.prompts == ("x", *[None] * 7)
        assert "1 image named in p.jsonl not found: gone.jpg" in ds.notes
        assert any(note.startswith("7 images have no prompt in data.prompts") for note in ds.notes)

    @pytest.mark.parametrize(
        ("rows", "words"),
        [
            (b"no json", "line 1 is not JSON"),
            (b"\xff", "not UTF-8"),
            (lines({"prompt": "x"}), "names no image"),
            (lines({"file_name": "../../etc/passwd", "prompt": "x"}), "none of the images"),
            (lines({"file_name": "Monet/Cats/1.jpg", "prompt": ["x"]}), "is no text"),
            (
                lines(*({"file_name": "Monet/Cats/1.jpg", "prompt": p} for p in "xy")),
                "another prompt already",
            ),
        ],
    )
    def test_broken_files(self, canvas: dict[str, bytes], folder: Write, rows: bytes, words: str) -> None:
        assert words in fails(spec_of(folder({**canvas, "p.jsonl": rows}), prompts="p.jsonl"))

    def test_a_missing_file_names_the_nearest(
        self, canvas: dict[str, bytes], tar: Write, tmp_path: Path
    ) -> None:
        path = tar({**canvas, "prompts.jsonl": self.prompts(canvas)})
        assert "did you mean prompts.jsonl" in fails(spec_of(path, prompts="prompt.jsonl"))
        assert "cannot read" in fails(spec_of(path, prompts=str(tmp_path / "none.jsonl")))


class TestRecipePaths:
    def test_prompts_inside_the_data_stay(self, tmp_path: Path) -> None:
        (tmp_path / "set").mkdir()
        for name in ("p.jsonl", "set/p.jsonl", "q.jsonl"):
            (tmp_path / name).write_text("")
        for name, expected in (("p", "p.jsonl"), ("q", str(tmp_path / "q.jsonl")), ("r", "r.jsonl")):
            values = {"data": {"path": "set", "prompts": f"{name}.jsonl"}}
            assert resolve_path(values, tmp_path)["data"]["prompts"] == expected

    def test_only_what_changed_counts_from_here(self, tmp_path: Path) -> None:
        (tmp_path / "p.jsonl").write_text("")
        known = {"data": {"path": "/x.tar", "prompts": "p.jsonl"}, "text": {"descriptors": "/d.json"}}
        changed = apply_sets(known, ["data.size=8", "text.descriptors=d.json"])
        found = resolve_path(changed, tmp_path, known)
        assert found["data"]["prompts"] == "p.jsonl"
        assert found["text"]["descriptors"] == str(tmp_path / "d.json")


class TestDescriptors:
    def test_text_and_lists(self, folder: Write, png: Callable[..., bytes]) -> None:
        rows = lines(
            {"file_name": "a/0.png", "d": "thin lines, no colour"},
            {"file_name": "a/1.png", "d": ["one, with comma", "two"]},
            {"file_name": "b/0.png", "d": None},
        )
        files = {**{f"{n}.png": png(i) for i, n in enumerate(("a/0", "a/1", "b/0"))}, "metadata.jsonl": rows}
        ds = read_dataset(spec_of(folder(files), descriptors="d"))
        assert ds.descriptors == (("thin lines", "no colour"), ("one, with comma", "two"), None)

    def test_lists_in_csv(self, folder: Write, png: Callable[..., bytes]) -> None:
        table = io.StringIO()
        table.write('file_name,d\na/0.png,"[""x, y"", ""z""]"\nb/0.png,"[thin, flat"\n')
        files = {"a/0.png": png(0), "b/0.png": png(1), "metadata.csv": table.getvalue().encode()}
        ds = read_dataset(spec_of(folder(files), descriptors="d"))
        assert ds.descriptors == (("x, y", "z"), ("[thin", "flat"))

    def test_they_are_in_digest_and_bytes_only_where_there_are_any(self) -> None:
        images = np.zeros((2, 1, 2, 2), dtype=np.uint8)
        args = (images, ["b", "a"], [["g"], ["h"]])
        plain, none = make_dataset(*args), make_dataset(*args, descriptors=[None, ()])
        some = make_dataset(*args, descriptors=[["x", "y"], None])
        # The digest that data sets had before there were descriptors.
        assert plain.digest == "03c7406e6e772a08f84f92336a97741bc310483d57831d8a591ffc7b2fc8ff0e"
        assert plain.digest == none.digest != some.digest
        assert to_bytes(plain) == to_bytes(none)
        assert b"descriptors" not in to_bytes(plain)
        assert some.descriptors == (None, ("x", "y"))
        for ds in (plain, some):
            back = from_bytes(to_bytes(ds))
            assert (back.descriptors, back.digest) == (ds.descriptors, ds.digest)
