"""The prompt in ComfyUI's graph (its API format): from the saved image back through its sampler to a text.

Nodes are other people's, and new ones appear daily: what they do is told from the names of their inputs and
classes. Where several texts could be meant, none is taken: a wrong prompt is worse than no prompt.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from pathlib import PurePath
from typing import Any, Final

from guda_cli.data.infotext import LONGEST_PROMPT, NONE, Written, without_tags

Node = dict[str, Any]
Graph = dict[str, Node]

_MOST_OUTPUTS = 64  # saved images that are looked at: each costs a walk through the graph
_SEVERAL = "its ComfyUI graph leads to several texts, and which of them counts cannot be told"
_NO_SAMPLER = "no sampler with a text is behind the image that its ComfyUI graph saves"


class _Unclear:
    """There are texts, and which of them is meant cannot be told."""


UNCLEAR: Final = _Unclear()
Text = str | _Unclear | None
"""What stands behind a node: a text, several (UNCLEAR), or nothing."""
Steps = Generator[str, Text, Text]
"""Yields ids of nodes whose texts it needs, and is sent them."""


def graph_prompt(entry: str, file: str = "") -> Written:
    """The text that conditions the sampler of the saved image.

    `file` is the name of the image: of several saved ones that is meant whose prefix it begins with.
    """
    graph = _graph(entry)
    texts = _Texts(graph)
    outputs = _outputs(graph, file)
    if len(outputs) > _MOST_OUTPUTS:
        return Written(why=_SEVERAL)
    samplers = [key for output in outputs for key in _samplers_behind(graph, output)]
    found = [texts.behind(_condition(graph[key])) for key in dict.fromkeys(samplers)]
    if not any(text is not None for text in found):  # not a graph that ends in an image, or cut in two
        found = [texts.behind(_condition(node)) for node in graph.values() if _is_sampler(node)]
    text = _agreed(found)
    if text is None:
        return Written(why=_NO_SAMPLER) if graph else NONE
    if isinstance(text, _Unclear):
        return Written(why=_SEVERAL)
    written = without_tags(text)
    return Written(written.prompt, written.left_out, (*written.networks, *_networks(graph)), written.why)


def _agreed(texts: Sequence[Text]) -> Text:
    """The text that all have that have any."""
    known = {text.strip() if isinstance(text, str) else text for text in texts if text is not None}
    return None if not known else known.pop() if len(known) == 1 else UNCLEAR


def _graph(entry: str) -> Graph:
    """The nodes of a graph that have inputs, by id; empty for anything that is no graph."""
    try:
        values = json.loads(entry)
    except (ValueError, RecursionError):
        return {}
    nodes = values.items() if isinstance(values, dict) else ()
    return {
        key: node for key, node in nodes if isinstance(node, dict) and isinstance(node.get("inputs"), dict)
    }


def _kind(node: Node) -> str:
    """The class of a node, in small letters."""
    return str(node.get("class_type")).lower()


def _linked(value: object) -> str | None:
    """The id of the node that an input comes from; None when it is no link."""
    if isinstance(value, list) and len(value) == 2 and isinstance(value[0], (str, int)):
        return str(value[0])
    return None


def _links(node: Node) -> dict[str, str]:
    return {name: key for name, value in node["inputs"].items() if (key := _linked(value)) is not None}


# -- the image -----------------------------------------------------------------------------------------------

_IMAGE_INPUTS = ("images", "image", "pixels", "frames", "video")
_PREVIEWS = ("preview", "compare", "show", "display", "view")
# Where the image path does not go on: what a decoder or an upscaler reads beside the image.
_BESIDE_IMAGE = frozenset(
    {
        "vae", "model", "clip", "positive", "negative", "conditioning", "control_net", "upscale_model",
        "mask", "noise", "sigmas", "guider", "bbox_detector", "sam_model_opt", "segm_detector_opt",
        "reference", "clip_vision", "audio", "text", "prompt", "filename", "metadata", "seed",
    }
)  # fmt: skip
_CONDITION = (
    "positive",
    "guider",
    "basic_pipe",
    "pipe",
    "base_ctx",
    "ctx",
    "context",
    "text_embeds",
    "conditioning",
)


def _outputs(graph: Graph, file: str) -> list[str]:
    """The nodes that save the image: those that save, else other ends, else previews."""
    used = {key for node in graph.values() for key in _links(node).values()}
    ends = [
        key
        for key, node in graph.items()
        if (key not in used or "save" in _kind(node)) and any(name in _links(node) for name in _IMAGE_INPUTS)
    ]
    previews = [key for key in ends if any(word in _kind(graph[key]) for word in _PREVIEWS)]
    saving = [key for key in ends if "save" in _kind(graph[key]) and key not in previews]
    found = saving or [key for key in ends if key not in previews] or previews
    named = [
        key for key in found if _prefix(graph[key]) and PurePath(file).name.startswith(_prefix(graph[key]))
    ]
    return named or found


def _prefix(node: Node) -> str:
    """What the names of a node's files begin with, as far as it is fixed."""
    given = node["inputs"].get("filename_prefix")
    return re.split(r"[/\\]", given)[-1].partition("%")[0] if isinstance(given, str) else ""


def _is_sampler(node: Node) -> bool:
    links = _links(node)
    if "positive" in links or "guider" in links:
        return True
    return "sampler" in _kind(node) and any(name in links for name in _CONDITION)


def _condition(node: Node) -> str:
    """The id of the node that conditions a sampler."""
    links = _links(node)
    return next(links[name] for name in _CONDITION if name in links)


def _samplers_behind(graph: Graph, output: str) -> list[str]:
    """The last samplers that the image of `output` went through.

    What only improves an image (detailers, upscalers: they read an image and have a text) counts where no
    sampler is behind it.
    """
    found, improving, seen, waiting = [], [], {output}, deque([output])
    while waiting:
        key = waiting.popleft()
        node, links = graph[key], _links(graph[key])
        if key != output and _is_sampler(node):
            if not any(name in links for name in _IMAGE_INPUTS):
                found.append(key)
                continue
            improving.append(key)
        switched = _chosen(graph, node) if _is_switch(node) else None
        for name, following in links.items():
            if switched is not None and name not in switched:
                continue
            if name not in _BESIDE_IMAGE and following in graph and following not in seen:
                seen.add(following)
                waiting.append(following)
    return found or improving[-1:]


def _networks(graph: Graph) -> Iterator[tuple[str, float | None]]:
    """The LoRAs that nodes of the graph load."""
    for node in graph.values():
        if "lora" not in _kind(node):
            continue
        inputs = node["inputs"]
        entries = [(inputs.get("lora_name"), inputs.get("strength_model"))]
        entries += [
            (value.get("lora"), value.get("strength"))
            for value in inputs.values()
            if isinstance(value, dict) and value.get("on") is True
        ]
        for name, weight in entries:
            if isinstance(name, str) and name.lower() != "none":
                known = isinstance(weight, (int, float)) and not isinstance(weight, bool)
                yield name, float(weight) if known and weight is not None else None


# -- switches ------------------------------------------------------------------------------------------------

_SWITCHES = ("switch", "selector", "branch", "mux", "ifelse", "if else")
_SELECTORS = (
    "Input",
    "input",
    "select",
    "index",
    "switch",
    "boolean",
    "boolean_number",
    "condition",
    "cond",
    "choice",
)
_SIDES = {True: ("true", "tt_", "_a"), False: ("false", "ff_", "_b")}


def _is_switch(node: Node) -> bool:
    return any(word in _kind(node) for word in _SWITCHES)


def _chosen(graph: Graph, node: Node) -> list[str]:
    """The inputs that a switch may let through: one where it can be told which."""
    inputs = node["inputs"]
    selector = next((name for name in _SELECTORS if name in inputs), None)
    names = [
        name
        for name, value in inputs.items()
        if name != selector and (isinstance(value, str) or _linked(value) is not None)
    ]
    if selector is None:
        # rgthree's lets the first through that is there
        return sorted(names)[:1] if "any switch" in _kind(node) else names
    value = _literal(graph, inputs[selector])
    if isinstance(value, bool) or (
        isinstance(value, int) and not any(re.search(r"\d$", name) for name in names)
    ):
        sides = _SIDES[bool(value)]
        picked = [name for name in names if any(side in f"_{name.lower()}" for side in sides)]
    else:
        picked = [
            name for name in names if (number := re.search(r"(\d+)$", name)) and int(number[1]) == value
        ]
    return picked if len(picked) == 1 else names


def _literal(graph: Graph, value: object) -> int | None:
    """A number or truth value of an input, also by a link to a node that holds it alone."""
    key = _linked(value)
    if key is not None and key in graph:
        held = [found for found in graph[key]["inputs"].values() if isinstance(found, (int, str))]
        value = held[0] if len(held) == 1 == len(graph[key]["inputs"]) else None
    if isinstance(value, str) and re.fullmatch(r"\d{1,9}|true|false", value.strip().lower()):
        text = value.strip().lower()
        return text == "true" if text in ("true", "false") else int(text)
    return value if isinstance(value, int) else None


# -- the text ------------------------------------------------------------------------------------------------

_TEXT_INPUTS = (
    "text", "prompt", "positive_prompt", "string", "value", "text_0", "text_a", "text1",
    "text_positive", "positive",
)  # fmt: skip
_ENCODED_TOGETHER = ("text_g", "text_l", "t5xxl", "clip_l", "clip_g", "llama")
_CONDITION_INPUTS = ("positive", "guider", "conditioning", "cond", "basic_pipe", "pipe")
# Links that carry something other than the positive condition.
_OTHER_INPUTS = frozenset(
    {
        "negative", "clip", "model", "vae", "latent_image", "latent", "samples", "image", "images", "pixels",
        "noise", "sigmas", "sampler", "control_net", "mask", "style_model", "clip_vision_output",
        "lora_stack", "uncond", "negative_prompt", "text_negative", "delimiter", "separator",
    }
)  # fmt: skip
_JOINS = ("concat", "join", "combine", "merge")
_JOINED = re.compile(r"(?:text|string|str|input|prompt)[ _]*[0-9a-z]?\d*$", re.IGNORECASE)
# What such nodes make of a text is not in the graph.
_REWRITES = (
    "replace", "regex", "format", "caption", "interrogat", "florence", "tagger", "translat", "generat", "llm",
    "gpt", "ollama", "expression", "template", "random", "stringfunction", "zeroout", "shuffle", "substring",
)  # fmt: skip
_CHANCE = re.compile(r"\{[^{}]*\|[^{}]*\}|__[^_\s][^\n]*?__")  # wildcards that are still to be filled in
_NO_STYLE = ("", "none", "base", "sai-base", "no style", "no-style", "default")


class _Texts:
    """The texts behind nodes; each node is looked at once, however many ask, and however deep they lie."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._known: dict[str, Text] = {}

    def behind(self, start: str) -> Text:
        """The text that node `start` gives; nodes in a circle give none."""
        waiting: list[tuple[str, Steps]] = []
        opened: set[str] = set()
        wanted: str | None = start
        answer: Text = None
        while True:
            if wanted is not None:
                if wanted in self._known or wanted in opened or wanted not in self._graph:
                    answer, wanted = self._known.get(wanted), None
                else:
                    opened.add(wanted)
                    waiting.append((wanted, self._steps(self._graph[wanted])))
                    answer, wanted = None, None
            if not waiting:
                return answer
            key, steps = waiting[-1]
            try:
                wanted = steps.send(answer)
            except StopIteration as end:
                answer = self._known[key] = end.value
                waiting.pop()
                opened.discard(key)

    def _steps(self, node: Node) -> Steps:
        """The text of one node."""
        kind, inputs = _kind(node), node["inputs"]
        filled = inputs.get("populated_text")
        if isinstance(filled, str) and filled.strip():
            return filled
        held = inputs.get("prompt_text")
        if isinstance(held, str) and inputs.get("use_input_text") is not True:
            return held
        if _is_switch(node):
            return (yield from self._each(node, _chosen(self._graph, node)))
        conditions = [name for name in _links(node) if name.startswith("conditioning")]
        if len(conditions) > 1:
            return (yield from self._each(node, conditions))
        if any(word in kind for word in _JOINS):
            return (yield from self._joined(node))
        together = [name for name in _ENCODED_TOGETHER if name in inputs]
        if together:
            return (yield from self._each(node, together, passing_over_empty=True))
        text = yield from self._first(node)
        return UNCLEAR if isinstance(text, str) and text.strip() and _rewritten(kind, inputs, text) else text

    def _value(self, node: Node, name: str) -> Steps:
        """An input's own text, or the one it is linked to."""
        value = node["inputs"].get(name)
        key = _linked(value)
        if key is not None:
            return (yield key)
        return value if isinstance(value, str) else None

    def _each(self, node: Node, names: Sequence[str], passing_over_empty: bool = False) -> Steps:
        """The text that all of these inputs agree on."""
        found = []
        for name in names:
            found.append((yield from self._value(node, name)))
        filled = [text for text in found if not isinstance(text, str) or text.strip()]
        return _agreed(filled if passing_over_empty and filled else found)

    def _joined(self, node: Node) -> Steps:
        """The texts of inputs like text_a and text_b, one after the other."""
        inputs = node["inputs"]
        names = [name for name in sorted(inputs) if _JOINED.match(name) and name not in _OTHER_INPUTS]
        parts = []
        for name in names:
            text = yield from self._value(node, name)
            if isinstance(text, _Unclear) or (text is None and _linked(inputs[name]) is not None):
                return UNCLEAR
            if text is not None and text.strip():
                parts.append(text)
        between = next((inputs[name] for name in ("delimiter", "separator") if name in inputs), None)
        if len(parts) < 2:
            return parts[0] if parts else (yield from self._first(node))
        if not isinstance(between, str) or sum(map(len, parts)) > 2 * LONGEST_PROMPT:
            return UNCLEAR
        return between.replace("\\n", "\n").join(parts)

    def _first(self, node: Node) -> Steps:
        """The text of the likeliest input that has one; an empty text only where no other is found."""
        inputs = node["inputs"]
        named = [name for name in (*_TEXT_INPUTS, *_CONDITION_INPUTS) if name in inputs]
        others = [name for name in _links(node) if name not in named and name not in _OTHER_INPUTS]
        empty: Text = None
        for name in dict.fromkeys((*named, *others)):
            text = yield from self._value(node, name)
            if isinstance(text, str) and not text.strip():
                empty = ""
            elif text is not None:
                return text
        return empty


def _rewritten(kind: str, inputs: dict[str, Any], text: str) -> bool:
    """Whether a node makes another text of `text` than stands in the graph."""
    style = inputs.get("style")
    if "styler" in kind and isinstance(style, str) and style.strip().lower() not in _NO_STYLE:
        return True
    if any(word in kind for word in _REWRITES):
        return True
    return any(word in kind for word in ("wildcard", "dynamic")) and bool(_CHANCE.search(text))
