"""Prompts that front ends write into image files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from guda_cli.data.embedded import embedded_prompt, graph_prompt, parameters_prompt
from tests.data.pngs import PIXELS, png

SETTINGS = "Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 512x512"
COMMENT = 0x9286


def with_comment(path: Path, comment: bytes) -> Path:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[COMMENT] = comment
    Image.fromarray(PIXELS).save(path, exif=exif)
    return path


def graph(**nodes: dict[str, Any]) -> str:
    """ComfyUI's API format; `kind` stands for class_type, the rest are inputs. Ids lose their letter n."""
    return json.dumps(
        {
            key.lstrip("n"): {
                "class_type": node["kind"],
                "inputs": {k: v for k, v in node.items() if k != "kind"},
            }
            for key, node in nodes.items()
        }
    )


SAMPLER = {"kind": "KSampler", "model": ["1", 0], "positive": ["6", 0], "negative": ["7", 0], "seed": 3}
NEGATIVE = {"kind": "CLIPTextEncode", "text": "ugly", "clip": ["1", 1]}


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
        assert parameters_prompt(entry) == prompt

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


class TestGraphs:
    def test_the_positive_text_of_the_sampler(self) -> None:
        text = graph(n7=NEGATIVE, n6={"kind": "CLIPTextEncode", "text": " a cat "}, n3=SAMPLER)
        assert graph_prompt(text) == "a cat"

    def test_through_nodes_between(self) -> None:
        nodes = {
            "n6": {
                "kind": "ControlNetApplyAdvanced",
                "negative": ["7", 0],
                "positive": ["8", 0],
                "strength": 1.0,
            },
            "n8": {"kind": "FluxGuidance", "guidance": 3.5, "conditioning": ["9", 0]},
            "n9": {"kind": "SomebodysReroute", "": ["10", 0]},
            "n10": {"kind": "CLIPTextEncodeSDXL", "text_g": "", "text_l": "a dog", "width": 1024},
        }
        assert graph_prompt(graph(n7=NEGATIVE, n3=SAMPLER, **nodes)) == "a dog"

    def test_text_by_link(self) -> None:
        nodes = {
            "n6": {"kind": "CLIPTextEncode", "text": ["8", 0], "clip": ["1", 1]},
            "n8": {"kind": "ShowText", "text": ["9", 0]},
            "n9": {"kind": "PrimitiveString", "value": "a fox"},
        }
        assert graph_prompt(graph(n3=SAMPLER, n7=NEGATIVE, **nodes)) == "a fox"

    def test_custom_samplers_with_a_guider(self) -> None:
        nodes = {
            "n3": {
                "kind": "SamplerCustomAdvanced",
                "noise": ["1", 0],
                "guider": ["4", 0],
                "sampler": ["2", 0],
            },
            "n2": {"kind": "KSamplerSelect", "sampler_name": "euler"},
            "n4": {"kind": "BasicGuider", "model": ["1", 0], "conditioning": ["6", 0]},
            "n6": {"kind": "CLIPTextEncode", "text": "a hen"},
        }
        assert graph_prompt(graph(**nodes)) == "a hen"

    def test_a_sampler_without_text_is_passed_over(self) -> None:
        nodes = {"n3": {**SAMPLER, "positive": ["99", 0]}, "n4": SAMPLER, "n6": {"kind": "E", "text": "x"}}
        assert graph_prompt(graph(**nodes)) == "x"

    @pytest.mark.parametrize(
        ("kind", "name"), [("Efficient Loader", "positive"), ("Styler", "text_positive")]
    )
    def test_loaders_that_hold_the_text_themselves(self, kind: str, name: str) -> None:
        nodes = {
            "n1": {"kind": kind, "ckpt_name": "m.safetensors", name: "a red cat", "negative": "blurry"},
            "n2": {"kind": "KSampler (Efficient)", "positive": ["1", 1], "negative": ["1", 2], "seed": 3},
        }
        assert graph_prompt(graph(**nodes)) == "a red cat"

    def test_cycles_end(self) -> None:
        around = {
            "n6": {"kind": "A", "conditioning": ["8", 0]},
            "n8": {"kind": "B", "conditioning": ["6", 0]},
        }
        assert graph_prompt(graph(n3=SAMPLER, **around)) is None

    def test_long_chains_end(self) -> None:
        chain = {f"n{i}": {"kind": "A", "conditioning": [str(i + 1), 0]} for i in range(6, 2000)}
        assert graph_prompt(graph(n3=SAMPLER, **chain, n2000={"kind": "E", "text": "far"})) == "far"

    @pytest.mark.parametrize(
        "entry",
        [
            "", "no json", "[]", "3", "null", "[" * 200_000, '{"1": 3}', " " * 2_000_000,
            '{"1": {"inputs": []}}',
            '{"1": {"class_type": ["KSampler"], "inputs": {"positive": [[], 0]}}}',
            '{"1": {"class_type": "KSampler", "inputs": {"positive": ["1", 0], "text": {"a": 1}}}}',
            graph(n3=SAMPLER, n6={"kind": "E", "text": "x" * 30_000}),
        ],
    )  # fmt: skip
    def test_hostile_entries_name_none(self, entry: str) -> None:
        assert graph_prompt(entry) is None

    def test_no_graph_raises(self) -> None:
        rng = np.random.Generator(np.random.PCG64(0))
        texts = 0
        for _ in range(500):
            found = graph_prompt(json.dumps({key: random_node(rng) for key in "1234"}))
            assert found is None or isinstance(found, str)
            texts += found is not None
        assert 0 < texts < 500


def random_node(rng: np.random.Generator) -> Any:
    """Something like a node: links, texts and rubbish in every place."""

    def value() -> Any:
        kinds = (
            [str(rng.integers(5)), 0],
            "words",
            None,
            3,
            True,
            {},
            [],
            [[], 1],
            {"text": "x"},
            "KSampler",
        )
        return kinds[rng.integers(len(kinds))]

    names = [name for name in ("positive", "text", "guider", "clip", "conditioning") if rng.random() < 0.5]
    inputs = {name: value() for name in names} if rng.random() < 0.9 else value()
    return {"class_type": value(), "inputs": inputs} if rng.random() < 0.9 else value()


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

    def test_a_huge_entry_names_none(self, tmp_path: Path) -> None:
        info = PngInfo()
        info.add_text("parameters", "x" * 5_000_000 + f"\n{SETTINGS}", zip=True)
        Image.fromarray(PIXELS).save(tmp_path / "a.png", pnginfo=info)
        assert (tmp_path / "a.png").stat().st_size < 20_000
        assert embedded_prompt(tmp_path / "a.png") is None
