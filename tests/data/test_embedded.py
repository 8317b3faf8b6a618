"""Prompts that front ends write into image files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, features
from PIL.PngImagePlugin import PngInfo

from guda_cli.data.embedded import embedded, embedded_prompt, read
from tests.data.pngs import PIXELS, png
from tests.data.test_comfyui import SAMPLER, graph

SETTINGS = "Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 512x512"
COMMENT = 0x9286


def with_comment(path: Path, comment: bytes) -> Path:
    exif = Image.Exif()
    exif[0x0131] = "a program"  # Pillow drops the EXIF of an AVIF that has no tag of its own
    exif.get_ifd(0x8769)[COMMENT] = comment
    Image.fromarray(PIXELS).save(path, exif=exif)
    return path


class TestParameters:
    @pytest.mark.parametrize(
        ("entry", "prompt"),
        [
            (f"a cat,\n(blue:1.2)\nNegative prompt: dog\n{SETTINGS}", "a cat,\n(blue:1.2)"),
            (f"a cat\n{SETTINGS}", "a cat"),
            (f"a cat. Steps: none\n{SETTINGS}", "a cat. Steps: none"),
            (f"\nNegative prompt: dog\n{SETTINGS}", ""),
            (f"Negative prompt: dog\n{SETTINGS}", ""),
            (SETTINGS, ""),
            ("just a remark", None),
            ('{"prompt": "x"}', None),
            ("", None),
            ("x" * 30_000 + f"\n{SETTINGS}", None),
        ],
    )
    def test_what_stands_before_the_settings(self, entry: str, prompt: str | None) -> None:
        assert read({"parameters": entry}).prompt == prompt

    @pytest.mark.parametrize("suffix", ["jpg", "webp"])
    @pytest.mark.parametrize(
        "head", [b"UNICODE\0|utf-16-be", b"UNICODE\0|utf-16-le", b"ASCII\0\0\0|utf-8", bytes(8) + b"|utf-8"]
    )
    def test_user_comments(self, tmp_path: Path, suffix: str, head: bytes) -> None:
        code, _, encoding = head.partition(b"|")
        text = f"a café\nNegative prompt: x\n{SETTINGS}"
        path = with_comment(tmp_path / f"a.{suffix}", code + text.encode(encoding.decode()))
        assert embedded_prompt(path) == "a café"

    @pytest.mark.parametrize(
        "comment", [b"", b"UNICODE\0", b"UNICODE\0\xd8", b"JIS\0\0\0\0\0abc", b"\xff" * 99]
    )
    def test_other_comments_name_none(self, tmp_path: Path, comment: bytes) -> None:
        assert embedded_prompt(with_comment(tmp_path / "a.jpg", comment)) is None

    @pytest.mark.parametrize(
        ("entry", "prompt", "left_out"),
        [
            ("a mill <lora:ink_v2:0.8>, rain", "a mill , rain", ("<lora:ink_v2:0.8>",)),
            (
                "<hypernet:anime:1> a mill <lyco:x:0.5:0.7>",
                "a mill",
                ("<hypernet:anime:1>", "<lyco:x:0.5:0.7>"),
            ),
            ("<lora:only:1>", "", ("<lora:only:1>",)),
            ("a < b, c > d, <3", "a < b, c > d, <3", ()),
            ("a <mill> by <b c:d>", "a <mill> by <b c:d>", ()),
        ],
    )
    def test_tags_of_networks_are_no_part_of_it(
        self, entry: str, prompt: str, left_out: tuple[str, ...]
    ) -> None:
        found = read({"parameters": f"{entry}\n{SETTINGS}"})
        assert (found.prompt, found.left_out) == (prompt, left_out)

    def test_networks_are_named_with_their_weights(self) -> None:
        found = read({"parameters": f"a <lora:ink_v2:0.8> <lyco:b> <hypernet:c:x>\n{SETTINGS}"})
        assert found.networks == (("ink_v2", 0.8), ("b", None), ("c", None))

    @pytest.mark.parametrize(
        ("entry", "prompt"),
        [
            (f"a stair\nSteps: 3, worn\n{SETTINGS}", "a stair\nSteps: 3, worn"),
            (f"a stair\nSteps: 3 worn treads\n{SETTINGS}", "a stair\nSteps: 3 worn treads"),
            (f"a stair\nSteps: 3\nNegative prompt: Steps: 4\nSteps: 5\n{SETTINGS}", "a stair\nSteps: 3"),
            ("a stair\nSteps: 20", "a stair"),
            ("a stair\nSteps: twenty, up", None),
        ],
    )
    def test_the_settings_are_the_last_line_of_steps(self, entry: str, prompt: str | None) -> None:
        assert read({"parameters": entry}).prompt == prompt


def _parameters(**values: Any) -> dict[str, str]:
    return {"parameters": json.dumps(values)}


def _swarm(prompt: str) -> dict[str, str]:
    return _parameters(sui_image_params={"prompt": prompt, "negativeprompt": "ugly", "steps": 20, "seed": 1})


def _invoke(image: dict[str, Any]) -> dict[str, str]:
    return {"sd-metadata": json.dumps({"model": "stable diffusion", "app_id": "x", "image": image})}


def _novelai(**comment: Any) -> dict[str, str]:
    return {"Software": "NovelAI", "Description": "a mill", "Comment": json.dumps({"steps": 28, **comment})}


class TestPrograms:
    """Where the programs write the prompt, by what their files hold."""

    @pytest.mark.parametrize(
        ("texts", "prompt", "left_out"),
        [
            (_swarm("a mill <lora:ink:0.5>"), "a mill", ("<lora:ink:0.5>",)),
            (_swarm("a mill <segment:face> a smile"), "a mill", ("<segment:face> a smile",)),
            (_swarm("a mill<refiner>sharp"), "a mill", ("<refiner>sharp",)),
            (_parameters(sui_image_params={"seed": 1}), None, ()),
            (_parameters(prompt="a mill", version="Fooocus v2.5.5"), "a mill", ()),
            (_parameters(prompt="a mill", metadata_scheme="fooocus"), "a mill", ()),
            ({**_parameters(prompt="a mill"), "fooocus_scheme": "fooocus"}, "a mill", ()),
            (_parameters(prompt="a mill", version="Somebody's 1"), None, ()),
            ({"invokeai_metadata": json.dumps({"positive_prompt": "a mill"})}, "a mill", ()),
            ({"invokeai_metadata": json.dumps({"seed": 3})}, None, ()),
            (_invoke({"prompt": [{"prompt": "a mill [ugly]", "weight": 1}]}), "a mill", ("[ugly]",)),
            (_invoke({"prompt": "a mill"}), "a mill", ()),
            (_invoke({"prompt": [{"prompt": "a", "weight": 1}, {"prompt": "b", "weight": 0.2}]}), None, ()),
            ({"Dream": '"a mill by a river" -s 50 -S 1 -W 512'}, "a mill by a river", ()),
            (_novelai(uc="x"), "a mill", ()),
            (_novelai(v4_prompt={"caption": {"char_captions": []}}), "a mill", ()),
            (_novelai(v4_prompt={"caption": {"char_captions": [{"char_caption": "b"}]}}), None, ()),
            ({"Software": "Somebody", "Description": "a mill", "Comment": "{}"}, None, ()),
            ({"prompt": "a mill", "negative_prompt": "x", "seed": "1"}, "a mill", ()),
            ({"Prompt": "a mill", "Negative Prompt": "x"}, "a mill", ()),
            ({"prompt": "a mill"}, None, ()),
        ],
    )  # fmt: skip
    def test_each_by_its_own_entries(
        self, texts: dict[str, str], prompt: str | None, left_out: tuple[str, ...]
    ) -> None:
        found = read(texts)
        assert (found.prompt, found.left_out) == (prompt, left_out)

    @pytest.mark.parametrize(
        ("texts", "why"),
        [
            (_invoke({"prompt": [{"prompt": "a"}, {"prompt": "b"}]}), "InvokeAI mixed several prompts"),
            (
                _novelai(v4_prompt={"caption": {"base_caption": "a", "char_captions": [{}]}}),
                "NovelAI was given prompts of several figures",
            ),
        ],
    )
    def test_why_none_is_named(self, texts: dict[str, str], why: str) -> None:
        assert read(texts).why == why

    @pytest.mark.parametrize("tag", [0x0110, 0x010F])
    @pytest.mark.parametrize("suffix", ["webp", "jpg"])
    def test_comfyui_s_graph_in_exif(self, tmp_path: Path, tag: int, suffix: str) -> None:
        exif = Image.Exif()
        exif[0x010F + 0x0110 - tag] = 'workflow:{"nodes": []}'
        exif[tag] = "prompt:" + graph(n3=SAMPLER, n6={"kind": "CLIPTextEncode", "text": "a mill"})
        Image.fromarray(PIXELS).save(tmp_path / f"a.{suffix}", exif=exif)
        assert embedded_prompt(tmp_path / f"a.{suffix}") == "a mill"

    @pytest.mark.skipif(not features.check("avif"), reason="this Pillow reads no AVIF")
    def test_parameters_in_an_avif(self, tmp_path: Path) -> None:
        path = with_comment(tmp_path / "a.avif", b"UNICODE\0" + f"a mill\n{SETTINGS}".encode("utf-16-be"))
        assert embedded_prompt(path) == "a mill"

    def test_swarmui_in_a_user_comment(self, tmp_path: Path) -> None:
        text = _swarm("a mill<lora:b:1>")["parameters"]
        found = embedded(with_comment(tmp_path / "a.jpg", b"ASCII\0\0\0" + text.encode()))
        assert (found.prompt, found.networks) == ("a mill", (("b", 1.0),))


class TestFiles:
    def test_our_own_entry_comes_first(self, tmp_path: Path) -> None:
        theirs = {"parameters": f"b\n{SETTINGS}", "prompt": graph(n3=SAMPLER, n6={"kind": "E", "text": "c"})}
        found = [
            embedded_prompt(png(tmp_path / "a.png", **texts)) for texts in ({"ours": "a", **theirs}, theirs)
        ]
        assert found == ["a", "b"]

    def test_no_pixel_is_decoded(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = png(tmp_path / "a.png", parameters=f"a cat\n{SETTINGS}")
        monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", None)
        assert embedded_prompt(path) == "a cat"

    def test_comfyui_in_a_png(self, tmp_path: Path) -> None:
        text = graph(n3=SAMPLER, n6={"kind": "CLIPTextEncode", "text": "a ☃"})
        path = png(tmp_path / "a.png", prompt=text, workflow="{}")
        assert embedded_prompt(path) == "a ☃"

    def test_lone_surrogates_are_made_harmless(self, tmp_path: Path) -> None:
        text = graph(n3=SAMPLER, n6={"kind": "CLIPTextEncode", "text": "a \ud800 b\0"})
        found = embedded_prompt(png(tmp_path / "a.png", prompt=text))
        assert found == "a ? b"

    @pytest.mark.parametrize(
        "data", [b"", b"\x89PNG\r\n\x1a\nrubbish", b"\xff\xd8\xff\xe1\0\x10Exif\0\0II*\0", b"GIF89a"]
    )
    def test_damaged_files_name_none(self, tmp_path: Path, data: bytes) -> None:
        (tmp_path / "a.png").write_bytes(data)
        assert embedded_prompt(tmp_path / "a.png") is None
        assert embedded_prompt(tmp_path / "none.png") is None

    def test_a_prompt_beside_a_long_text(self, tmp_path: Path) -> None:
        info = PngInfo()
        info.add_text("workflow", "x" * 5_000_000, zip=True)
        info.add_text("parameters", f"a mill\n{SETTINGS}")
        Image.fromarray(PIXELS).save(tmp_path / "a.png", pnginfo=info)
        assert embedded_prompt(tmp_path / "a.png") == "a mill"

    def test_a_huge_entry_names_none(self, tmp_path: Path) -> None:
        info = PngInfo()
        info.add_text("parameters", "x" * 5_000_000 + f"\n{SETTINGS}", zip=True)
        Image.fromarray(PIXELS).save(tmp_path / "a.png", pnginfo=info)
        assert (tmp_path / "a.png").stat().st_size < 20_000
        assert embedded_prompt(tmp_path / "a.png") is None
