"""ComfyUI's graphs: from the saved image back to the text."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from guda_cli.data import comfyui


def graph_prompt(entry: str, file: str = "") -> str | None:
    return comfyui.graph_prompt(entry, file).prompt


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


def encoded(text: Any) -> dict[str, Any]:
    return {"kind": "CLIPTextEncode", "clip": ["1", 1], "text": text}


def text(value: str) -> dict[str, Any]:
    return {"kind": "StringConstant", "string": value}


def saved(samples: str, decoder: str = "8", kind: str = "SaveImage", prefix: str = "x") -> dict[str, Any]:
    """A decoder and the node that saves what it gives."""
    return {
        f"n{decoder}": {"kind": "VAEDecode", "samples": [samples, 0], "vae": ["1", 2]},
        f"n{decoder}0": {"kind": kind, "images": [decoder, 0], "filename_prefix": prefix},
    }


def through(*nodes: dict[str, Any]) -> str | None:
    """The prompt where the encoder reads node 10, the first of `nodes`; the others are 11, 12, ..."""
    parts = {f"n{i}": node for i, node in enumerate(nodes, start=10)}
    return graph_prompt(graph(n3=SAMPLER, n6=encoded(["10", 0]), n7=NEGATIVE, **saved("3"), **parts))


BARN = {**SAMPLER, "positive": ["21", 0]}
A, B = ["11", 0], ["12", 0]


class TestTheSavedImage:
    def test_what_is_previewed_does_not_count(self) -> None:
        nodes = {"n20": BARN, "n21": encoded("a barn"), **saved("20", "22", "PreviewImage")}
        assert graph_prompt(graph(**nodes, n3=SAMPLER, n6=encoded("a mill"), **saved("3"))) == "a mill"

    def test_of_two_passes_the_last_counts(self) -> None:
        first = {**BARN, "latent_image": ["5", 0]}
        last = {**SAMPLER, "latent_image": ["20", 0]}
        nodes = {"n20": first, "n21": encoded("a barn"), "n3": last, "n6": encoded("a mill"), **saved("3")}
        assert graph_prompt(graph(**nodes)) == "a mill"
        up = {"n30": {"kind": "LatentUpscale", "samples": ["20", 0]}}
        nodes["n3"] = {**last, "latent_image": ["30", 0]}
        assert graph_prompt(graph(**nodes, **up)) == "a mill"

    def test_what_improves_a_part_does_not_count_where_something_drew_the_whole(self) -> None:
        detailer = {"kind": "FaceDetailer", "image": ["8", 0], "positive": ["21", 0], "negative": ["7", 0]}
        save = {"kind": "SaveImage", "images": ["40", 0], "filename_prefix": "x"}
        parts = {"n40": detailer, "n41": save, "n21": encoded("a face")}
        decoder = {"n8": {"kind": "VAEDecode", "samples": ["3", 0], "vae": ["1", 2]}}
        assert graph_prompt(graph(n3=SAMPLER, n6=encoded("a mill"), **decoder, **parts)) == "a mill"
        loaded = {"n8": {"kind": "LoadImage", "image": "x.png"}}
        assert graph_prompt(graph(**loaded, **parts)) == "a face"

    def test_of_two_saved_ones_the_one_with_the_file_s_name(self) -> None:
        nodes = {"n20": BARN, "n21": encoded("a barn"), **saved("20", "22", prefix="out/barn_%date%")}
        nodes |= {"n3": SAMPLER, "n6": encoded("a mill"), **saved("3", prefix="mill")}
        assert graph_prompt(graph(**nodes), "barn_00001_.png") == "a barn"
        assert graph_prompt(graph(**nodes), "mill_00001_.png") == "a mill"
        assert graph_prompt(graph(**nodes), "renamed.png") is None
        assert "several texts" in comfyui.graph_prompt(graph(**nodes)).why

    def test_two_saved_ones_of_one_prompt(self) -> None:
        nodes = {"n3": SAMPLER, "n6": encoded("a mill"), **saved("3"), **saved("3", "22", prefix="y")}
        assert graph_prompt(graph(**nodes), "z.png") == "a mill"

    @pytest.mark.parametrize(("chosen", "prompt"), [(1, "a barn"), (2, "a mill"), (["99", 0], None)])
    def test_a_switch_of_images(self, chosen: Any, prompt: str | None) -> None:
        switch = {"kind": "ImpactSwitch", "select": chosen, "input1": ["22", 0], "input2": ["8", 0]}
        save = {"kind": "SaveImage", "images": ["40", 0]}
        nodes = {"n20": BARN, "n21": encoded("a barn"), "n3": SAMPLER, "n6": encoded("a mill")}
        nodes |= {
            key: node for key, node in (saved("20", "22") | saved("3")).items() if not key.endswith("0")
        }
        nodes["n20"] = BARN
        assert graph_prompt(graph(**nodes, n40=switch, n41=save)) == prompt


class TestTexts:
    """What nodes make of texts; where that cannot be known, no prompt."""

    @pytest.mark.parametrize(
        ("switch", "prompt"),
        [
            ({"kind": "CR Text Input Switch", "Input": 2, "text1": A, "text2": B}, "a mill"),
            ({"kind": "CR Text Input Switch", "Input": 1, "text1": A, "text2": B}, "a barn"),
            ({"kind": "ImpactSwitch", "select": ["13", 0], "input1": A, "input2": B}, "a mill"),
            ({"kind": "ImpactSwitch", "select": ["99", 0], "input1": A, "input2": B}, None),
            ({"kind": "easy anythingIndexSwitch", "index": 0, "value0": B, "value1": A}, "a mill"),
            ({"kind": "Any Switch (rgthree)", "any_02": A, "any_01": B}, "a mill"),
            ({"kind": "ComfySwitchNode", "switch": True, "on_false": A, "on_true": B}, "a mill"),
            ({"kind": "Text Input Switch", "boolean": False, "text_a": A, "text_b": B}, "a mill"),
            ({"kind": "ImpactConditionalBranch", "cond": True, "tt_value": B, "ff_value": A}, "a mill"),
            ({"kind": "SomebodysSwitch", "how": "?", "one": A, "two": B}, None),
            ({"kind": "SomebodysSwitch", "one": B, "two": B}, "a mill"),
        ],
    )  # fmt: skip
    def test_switches(self, switch: dict[str, Any], prompt: str | None) -> None:
        number = {"kind": "PrimitiveInt", "value": 2}
        assert through(switch, text("a barn"), text("a mill"), number) == prompt

    @pytest.mark.parametrize(
        ("node", "prompt"),
        [
            ({"wildcard_text": "a {mill|barn}", "populated_text": "a mill", "mode": "populate"}, "a mill"),
            ({"wildcard_text": "a {mill|barn}", "populated_text": "", "text": "a {mill|barn}"}, None),
            ({"text": "a __building__"}, None),
            ({"text": "a mill"}, "a mill"),
        ],
    )
    def test_wildcards(self, node: dict[str, Any], prompt: str | None) -> None:
        assert through({"kind": "ImpactWildcardProcessor", **node}) == prompt

    def test_a_stash(self) -> None:
        stash = {
            "kind": "PromptStashSaver",
            "prompt_text": "a mill",
            "text": A,
            "use_input_text": False,
        }
        assert through(stash, text("")) == "a mill"
        assert through({**stash, "use_input_text": True}, text("a barn")) == "a barn"

    @pytest.mark.parametrize(
        ("join", "prompt"),
        [
            ({"kind": "Concatenate", "string_a": A, "string_b": "dusk", "delimiter": ", "}, "a mill, dusk"),
            ({"kind": "Text Concatenate", "delimiter": "\\n", "text_a": A, "text_b": A}, "a mill\na mill"),
            ({"kind": "JoinStrings", "string1": "in oil:", "string2": A, "delimiter": " "}, "in oil: a mill"),
            ({"kind": "StringConcatenate", "string_a": A, "string_b": ["99", 0], "delimiter": ""}, None),
            ({"kind": "Concat", "text1": A, "text2": "at dusk"}, None),
            ({"kind": "Concat", "text1": A, "text2": " "}, "a mill"),
        ],
    )  # fmt: skip
    def test_joined(self, join: dict[str, Any], prompt: str | None) -> None:
        assert through(join, text("a mill")) == prompt

    @pytest.mark.parametrize(
        "kind", ["StringReplace", "RegexExtract", "LLM_Node", "Florence2Run", "FormatString"]
    )
    def test_what_is_made_of_a_text_is_not_known(self, kind: str) -> None:
        assert through({"kind": kind, "text": A}, text("a mill")) is None

    def test_a_style_is_put_around_a_text(self) -> None:
        styler = {"kind": "SDXLPromptStyler", "text_positive": "a mill", "style": "sai-anime"}
        assert through(styler) is None
        assert through({**styler, "style": "base"}) == "a mill"

    @pytest.mark.parametrize(
        ("parts", "prompt"),
        [
            ({"text_g": "a mill", "text_l": "a mill"}, "a mill"),
            ({"clip_l": "", "t5xxl": "a mill"}, "a mill"),
            ({"clip_l": "oil", "t5xxl": "a mill"}, None),
            ({"text_g": "", "text_l": ""}, ""),
        ],
    )
    def test_several_encoders(self, parts: dict[str, str], prompt: str | None) -> None:
        assert (
            graph_prompt(graph(n3=SAMPLER, n6={"kind": "CLIPTextEncodeX", **parts}, **saved("3"))) == prompt
        )

    @pytest.mark.parametrize(("other", "prompt"), [("a barn", None), ("a mill", "a mill")])
    @pytest.mark.parametrize(
        "names", [("conditioning_1", "conditioning_2"), ("conditioning_to", "conditioning_from")]
    )
    def test_two_conditions(self, names: tuple[str, str], other: str, prompt: str | None) -> None:
        both = {"kind": "ConditioningCombine", **dict(zip(names, (["10", 0], A), strict=True))}
        nodes = {"n6": both, "n10": encoded("a mill"), "n11": encoded(other)}
        assert graph_prompt(graph(n3=SAMPLER, **nodes, **saved("3"))) == prompt

    def test_loras_of_the_graph_and_of_the_text(self) -> None:
        loader = {
            "kind": "LoraLoader",
            "lora_name": "oil.safetensors",
            "strength_model": 0.7,
            "model": ["1", 0],
        }
        power = {"kind": "Power Lora Loader (rgthree)", "lora_1": {"on": True, "lora": "ink", "strength": 1}}
        entry = graph(n3=SAMPLER, n6=encoded("a mill <lora:dusk:0.5>"), n9=loader, n12=power, **saved("3"))
        found = comfyui.graph_prompt(entry)
        assert found.prompt == "a mill"
        assert found.left_out == ("<lora:dusk:0.5>",)
        assert found.networks == (("dusk", 0.5), ("oil.safetensors", 0.7), ("ink", 1.0))


class TestBounds:
    """A file of 1 MB holds some 13,000 nodes; none makes a search of its own."""

    @pytest.mark.parametrize("ends", [{}, saved("100")], ids=["no image", "an image"])
    def test_samplers_in_a_row(self, ends: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
        chain = {}
        for i in range(100, 4000):
            above = [str(i + 1), 0]
            chain[f"n{i}"] = {**SAMPLER, "positive": above, "latent_image": above}
        assert self.looked_at(graph(**chain, **ends), monkeypatch) <= len(chain)

    def test_texts_joined_again_and_again(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Each joins the one before with itself: 2 to the power of 200 characters, were they written out."""
        joins = {}
        for i in range(100, 300):
            above = [str(i + 1), 0]
            joins[f"n{i}"] = {"kind": "Concat", "text_a": above, "text_b": above, "delimiter": ""}
        entry = graph(n3=SAMPLER, n6=encoded(["100", 0]), **joins, n300=text("a mill"), **saved("3"))
        assert self.looked_at(entry, monkeypatch) <= len(joins) + 2
        assert graph_prompt(entry) is None

    def looked_at(self, entry: str, monkeypatch: pytest.MonkeyPatch) -> int:
        """How many nodes are asked for a text."""
        plain, asked = comfyui._Texts._steps, []
        monkeypatch.setattr(
            comfyui._Texts, "_steps", lambda self, node: (asked.append(node), plain(self, node))[1]
        )
        graph_prompt(entry)
        monkeypatch.undo()
        return len(asked)


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
