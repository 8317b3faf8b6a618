"""Prompts taken apart, and what styles are called."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from guda_cli.data.dataset import Dataset, make_dataset
from guda_cli.data.styles import (
    ParsedPrompt,
    check_captions,
    content_ids,
    parse_prompt,
    read_descriptors,
    render,
    styles_of,
)
from guda_cli.errors import DataError
from guda_cli.sections import TextSpec

SPEC = TextSpec()
OTHER = TextSpec(pattern="(?P<style>.*?) painting of (?P<object>.*)", template="{style} painting of {object}")


def data(
    names: Sequence[str],
    prompts: Sequence[str | None] | None = None,
    labels: Sequence[Sequence[str]] | None = None,
    descriptors: Sequence[Sequence[str] | None] | None = None,
) -> Dataset:
    images = np.arange(len(names) * 4, dtype=np.uint8).reshape(-1, 1, 2, 2)
    return make_dataset(
        images, names, labels or [[n.split("/")[0]] for n in names], prompts, descriptors=descriptors
    )


class TestPrompts:
    def test_parts(self) -> None:
        text = "a cat, artistic style featuring thin lines,  no colour, "
        assert parse_prompt(text, SPEC) == ParsedPrompt("a cat", ("thin lines", "no colour"))
        assert parse_prompt("a cat", SPEC) is None
        assert parse_prompt("flat, soft painting of a dog", OTHER) == ParsedPrompt("a dog", ("flat", "soft"))

    def test_braces_are_only_text(self) -> None:
        assert render("{style} {0.x}", ["{object}"], OTHER) == "{object} painting of {style} {0.x}"

    def test_an_optional_style(self) -> None:
        spec = TextSpec(pattern="(?P<object>[^,]*)(, (?P<style>.*))?", template="{object}, {style}")
        assert parse_prompt("a cat", spec) == ParsedPrompt("a cat", ())
        assert render("a cat", (), spec) == "a cat"

    @pytest.mark.parametrize("spec", [SPEC, OTHER])
    def test_render_and_parse_are_inverse(self, spec: TextSpec) -> None:
        rng = np.random.Generator(np.random.PCG64(0))

        def words() -> str:
            return "".join(rng.choice(list("abc def"), rng.integers(1, 9))).strip() or "x"

        for _ in range(100):
            shown, style = words(), tuple(words() for _ in range(rng.integers(1, 5)))
            assert parse_prompt(render(shown, style, spec), spec) == ParsedPrompt(shown, style)


class TestStyles:
    PROMPTS = ("x, artistic style featuring b, a", None, "y, artistic style featuring c, a", "plain")

    def test_from_prompts(self) -> None:
        ds = data(("k/0", "k/1", "k/2", "m/0"), (*self.PROMPTS[:3], "z, artistic style featuring q"))
        assert styles_of(ds, SPEC, None) == {"k": ("a", "b", "c"), "m": ("q",)}

    def test_metadata_come_before_prompts_and_the_file_before_both(self) -> None:
        ds = data(("k/0", "m/0"), self.PROMPTS[::2], descriptors=[("soft", "dark"), None])
        assert styles_of(ds, SPEC, None) == {"k": ("dark", "soft"), "m": ("a", "c")}
        listed = {"k": ("z", "y", "z"), "m": ["w"], "more": ["v"]}
        assert styles_of(ds, SPEC, listed) == {"k": ("y", "z"), "m": ("w",)}

    def test_a_group_without_any(self) -> None:
        ds = data(("k/0", "m/0"), ("plain words", "y, artistic style featuring c"))
        with pytest.raises(DataError, match="1 group has no style descriptors: k") as caught:
            styles_of(ds, SPEC, None)
        assert "plain words" in caught.value.why
        assert "text.descriptors" in caught.value.fix
        with pytest.raises(DataError, match=r"descriptors: m$") as caught:
            styles_of(ds, SPEC, {"k": ["a"], "mm": ["b"]})
        assert "'mm'" in caught.value.fix

    def test_files(self, tmp_path: Path) -> None:
        path = tmp_path / "styles.json"
        path.write_text(json.dumps({"a": ["x", " y ", ""], "b": {"descriptors": ["z"], "licence": "MIT"}}))
        assert read_descriptors(path) == {"a": ("x", "y"), "b": ("z",)}

    @pytest.mark.parametrize("text", ["", "[]", '{"a": "x"}', '{"a": [1]}', '{"a": {}}', "[" * 100_000])
    def test_broken_files(self, tmp_path: Path, text: str) -> None:
        path = tmp_path / "styles.json"
        path.write_text(text)
        with pytest.raises(DataError, match=r"styles\.json") as caught:
            read_descriptors(path)
        assert "text.descriptors" in caught.value.fix
        with pytest.raises(DataError, match="cannot read"):
            read_descriptors(tmp_path / "none.json")


class TestCaptions:
    def test_missing_ones_are_named(self) -> None:
        ds = data(("a/0", "a/1", "b/0", "b/1", "b/2"), ("x", None, "", None, None))
        with pytest.raises(
            DataError, match="4 of 5 images have no prompt: a/1, b/0, b/1 and 1 more"
        ) as caught:
            check_captions(ds)
        assert "metadata.jsonl" in caught.value.fix
        assert "data.prompts" in caught.value.fix

    def test_none_is_missing(self) -> None:
        check_captions(data(("a/0", "b/0"), ("x", "y")))


class TestContent:
    def test_below_the_group_folder(self) -> None:
        ds = data(("flat.1/cats/7.png", "thin/cats/7.jpg", "thin/dogs/1.tar.png"))
        assert content_ids(ds) == ("cats/7", "cats/7", "dogs/1.tar")

    def test_numbers_in_flat_folders_are_no_content(self) -> None:
        prompts = ("cat, artistic style featuring a", "dog, artistic style featuring b", None, None, None)
        names = ("monet/1.png", "vangogh/1.png", "monet/2.png", "vangogh/bridge.png", "monet/bridge.jpg")
        ds = data(names, prompts)
        found = dict(zip(ds.names, content_ids(ds), strict=True))
        assert [found[name] for name in names] == ["cat", "dog", "monet/2", "bridge", "bridge"]

    def test_objects_of_prompts_elsewhere(self) -> None:
        prompts = ("cat, artistic style featuring a", "cat, artistic style featuring b", "a cat")
        ds = data(("0.png", "1.png", "x/2.png"), prompts, [["p"], ["q"], ["q"]])
        assert content_ids(ds) == ("cat", "cat", "x/2")

    def test_an_image_in_two_groups(self) -> None:
        ds = data(("a/0.png", "b/0.png"), ("dog, z", "dog, y"), [["a", "b"], ["b"]])
        assert content_ids(ds, TextSpec(pattern="(?P<object>.*), (?P<style>.*)")) == ("dog", "dog")
