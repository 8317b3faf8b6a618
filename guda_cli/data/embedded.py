"""Prompts that image generators write into the files they save.

Nothing here raises: a damaged, hostile or foreign entry names no prompt.
"""

from __future__ import annotations

import json
import re
import warnings
from pathlib import Path
from typing import Any

PNG_KEY = "guda:prompt"
"""Keyword of the PNG text chunk in which `guda sample` writes an image's prompt."""

_LONGEST_ENTRY = 1 << 20  # characters; whole ComfyUI graphs stay far below
_LONGEST_PROMPT = 20_000
_EXIF_IFD, _USER_COMMENT = 0x8769, 0x9286
_SETTINGS = re.compile(r"^(?:Negative prompt:|Steps: \d)", re.MULTILINE)

Graph = dict[str, dict[str, Any]]


def embedded_prompt(path: Path) -> str | None:
    """The prompt in an image file, None where there is none.

    In this order: the PNG text `guda:prompt`; AUTOMATIC1111's `parameters`, in a PNG's text or as the EXIF
    user comment of a JPEG or WebP; ComfyUI's graph in the PNG text `prompt`. "" is the empty prompt.
    """
    texts, comment = _entries(path)
    found = (
        _plain(texts.get(PNG_KEY)),
        parameters_prompt(texts.get("parameters")),
        graph_prompt(texts.get("prompt")),
        parameters_prompt(comment),
    )
    return next((text for text in found if text is not None), None)


def parameters_prompt(entry: str | None) -> str | None:
    """The prompt of AUTOMATIC1111's parameters: what stands before the negative prompt and the settings.

    Without settings after it a text is somebody's remark, and names no prompt.
    """
    if entry is None or len(entry) > _LONGEST_ENTRY:
        return None
    settings = _SETTINGS.search(entry)
    return None if settings is None else _plain(entry[: settings.start()])


def graph_prompt(entry: str | None) -> str | None:
    """The text that conditions the first sampler of ComfyUI's graph (its API format, JSON).

    A sampler is a node with a link `positive` or `guider` and "sampler" in its class, or else any node with
    a link `positive`. From there links are followed to a node that holds text.
    """
    graph = _graph(entry)
    linked = [node for node in graph.values() if _link(node["inputs"], "positive") is not None]
    samplers = [
        node
        for node in graph.values()
        if "sampler" in str(node.get("class_type")).lower()
        and (_link(node["inputs"], "positive") or _link(node["inputs"], "guider"))
    ]
    for node in samplers or linked:
        start = _link(node["inputs"], "positive") or _link(node["inputs"], "guider")
        text = _text_behind(graph, start) if start is not None else None
        if text is not None:
            return _plain(text)
    return None


def _plain(text: str | None) -> str | None:
    """`text` without the space around it, None when it is unreasonably long; every character encodes."""
    if text is None or len(text) > _LONGEST_PROMPT:
        return None
    return text.encode("utf-8", "replace").decode("utf-8").replace("\0", "").strip()


# -- files ---------------------------------------------------------------------------------------------------


def _entries(path: Path) -> tuple[dict[str, str], str | None]:
    """The PNG text entries and the EXIF user comment of an image file; pixels are not decoded."""
    from PIL import Image

    from guda_cli.data.images import DECODING_ERRORS

    texts: dict[str, str] = {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=("PNG", "JPEG", "WEBP")) as image:
                if image.format == "PNG":
                    found = {k: image.info.get(k) for k in (PNG_KEY, "parameters", "prompt")}
                    texts = {key: str(value) for key, value in found.items() if isinstance(value, str)}
                if image.format == "PNG" and "exif" not in image.info:
                    return texts, None  # asked for it, Pillow would decode the pixels to look behind them
                comment = image.getexif().get_ifd(_EXIF_IFD).get(_USER_COMMENT)
    except (*DECODING_ERRORS, Image.DecompressionBombError):
        return texts, None
    return texts, _user_comment(comment)


def _user_comment(value: object) -> str | None:
    """The text of an EXIF user comment: 8 bytes name its encoding (Exif 2.32, 4.6.5)."""
    if isinstance(value, str):
        return value
    if not isinstance(value, bytes) or len(value) > 4 * _LONGEST_ENTRY:
        return None
    code, data = value[:8], value[8:]
    if code == b"UNICODE\0":
        # Either byte order is written; in western text the zero bytes tell which.
        big = data[0::2].count(0) >= data[1::2].count(0)
        return data.decode("utf-16-be" if big else "utf-16-le", "replace").lstrip("\ufeff")
    if code in (b"ASCII\0\0\0", bytes(8)):
        return data.decode("utf-8", "replace")
    return None


# -- ComfyUI's graph -----------------------------------------------------------------------------------------

_TEXT_INPUTS = (
    "text", "text_g", "prompt", "positive_prompt", "string", "value", "t5xxl", "clip_l", "text_l", "text_0",
    "string_a", "string_b", "text_a", "text_b", "text1", "text2", "text_positive", "positive",
)  # fmt: skip
_CONDITION_INPUTS = ("positive", "guider", "conditioning", "conditioning_to", "conditioning_1", "cond")
# Links that carry something other than the positive condition.
_OTHER_INPUTS = frozenset(
    {
        "negative", "clip", "model", "vae", "latent_image", "latent", "samples", "image", "images", "pixels",
        "noise", "sigmas", "sampler", "control_net", "mask", "style_model", "clip_vision_output",
        "lora_stack", "conditioning_2", "conditioning_from", "uncond",
    }
)  # fmt: skip


def _graph(entry: str | None) -> Graph:
    """The nodes of a graph that have inputs, by id; empty for anything that is no graph."""
    if entry is None or len(entry) > _LONGEST_ENTRY:
        return {}
    try:
        values = json.loads(entry)
    except (ValueError, RecursionError):
        return {}
    nodes = values.items() if isinstance(values, dict) else ()
    return {
        key: node for key, node in nodes if isinstance(node, dict) and isinstance(node.get("inputs"), dict)
    }


def _link(inputs: dict[str, Any], name: str) -> str | None:
    """The id of the node that the input `name` comes from; None when it is no link."""
    value = inputs.get(name)
    if isinstance(value, list) and len(value) == 2 and isinstance(value[0], (str, int)):
        return str(value[0])
    return None


def _text_behind(graph: Graph, start: str) -> str | None:
    """The first text found from node `start` upstream: text of its own, then along its likeliest links."""
    waiting, seen = [start], set[str]()
    while waiting:
        key = waiting.pop()
        if key in seen or key not in graph:
            continue
        seen.add(key)
        inputs = graph[key]["inputs"]
        own = _own_text(inputs)
        if own is not None:
            return own
        named = [name for name in (*_TEXT_INPUTS, *_CONDITION_INPUTS) if name in inputs]
        others = [name for name in inputs if name not in named and name not in _OTHER_INPUTS]
        links = (_link(inputs, name) for name in (*named, *others))
        waiting += reversed([link for link in links if link is not None])
    return None


def _own_text(inputs: dict[str, Any]) -> str | None:
    """The text a node holds itself, the first that is not empty; None when a link comes before it."""
    empty: str | None = None
    for name in _TEXT_INPUTS:
        if _link(inputs, name) is not None:
            return None
        value = inputs.get(name)
        if isinstance(value, str):
            if value.strip():
                return value
            empty = ""
    return empty
