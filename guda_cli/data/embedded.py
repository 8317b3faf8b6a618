"""Prompts that image generators write into the files they save.

Nothing here raises: a damaged, hostile or foreign entry names no prompt.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from guda_cli.data.comfyui import graph_prompt
from guda_cli.data.infotext import NONE, Written, infotext, plain, without_sections, without_tags

PNG_KEY = "guda:prompt"
"""Keyword of the PNG text chunk in which `guda sample` writes an image's prompt."""

_FORMATS = ("PNG", "JPEG", "WEBP")
_LONGEST_ENTRY = 1 << 20  # characters; whole ComfyUI graphs stay far below
_EXIF_IFD, _USER_COMMENT = 0x8769, 0x9286
_DESCRIPTION, _MAKE, _MODEL = 0x010E, 0x010F, 0x0110
_GRAPH = re.compile(r"prompt:\s*(?=\{)", re.IGNORECASE)  # in an EXIF tag; `workflow:` is another form of it
_DREAM = re.compile(r'^"(.*?)"(?:\s+-\w|\s*$)', re.DOTALL)
_BRACKETS = re.compile(r"\[[^\[\]]*\]")  # InvokeAI's negative prompt, before version 3
_KEYS = (
    PNG_KEY, "parameters", "prompt", "Prompt", "negative_prompt", "Negative Prompt", "invokeai_metadata",
    "sd-metadata", "Dream", "Software", "Source", "Description", "Comment", "fooocus_scheme",
)  # fmt: skip


def embedded_prompt(path: Path) -> str | None:
    """The prompt in an image file, None where there is none; "" is the empty prompt."""
    return embedded(path).prompt


def embedded(path: Path) -> Written:
    """What programs wrote of the prompt into an image file; the first entry that names one counts.

    In this order: the PNG text `guda:prompt`; the texts of AUTOMATIC1111, SwarmUI, Fooocus, InvokeAI and
    NovelAI; ComfyUI's graph; the EXIF comment of a JPEG, WebP or AVIF, which most of these write, too.
    """
    texts, comments = _entries(path)
    ours = texts.get(PNG_KEY)
    if ours is not None and (prompt := plain(ours)) is not None:
        return Written(prompt)
    found = [read(texts, path.name)]
    for comment in comments:
        graph = _GRAPH.match(comment)
        entries = {"prompt": comment[graph.end() :]} if graph else {"parameters": comment}
        found.append(read(entries, path.name))
    return next(
        (written for written in found if written.prompt is not None),
        next((written for written in found if written.why), NONE),
    )


def read(texts: Mapping[str, str], file: str = "") -> Written:
    """What the text entries of a file say, by their keywords; `file` is its name."""
    short = {key: text for key, text in texts.items() if len(text) <= _LONGEST_ENTRY}
    readers = (
        _parameters(short),
        _invokeai(short),
        _novelai(short),
        _easy_diffusion(short),
        graph_prompt(short["prompt"], file) if "prompt" in short else NONE,
    )
    return next(
        (written for written in readers if written.prompt is not None),
        next((written for written in readers if written.why), NONE),
    )


# -- programs ------------------------------------------------------------------------------------------------


def _parameters(texts: Mapping[str, str]) -> Written:
    """AUTOMATIC1111's text, or the JSON that SwarmUI and Fooocus put in its place."""
    entry = texts.get("parameters")
    if entry is None:
        return NONE
    values = _json(entry)
    if not values:
        return infotext(entry)
    swarm = values.get("sui_image_params")
    if isinstance(swarm, dict):
        return without_sections(swarm["prompt"]) if isinstance(swarm.get("prompt"), str) else NONE
    if _is_fooocus(values, texts) and isinstance(values.get("prompt"), str):
        return without_tags(values["prompt"])
    if "Software" in values:  # NovelAI's entries of a PNG as one object, in its WebP files
        return _novelai({key: value for key, value in values.items() if isinstance(value, str)})
    return NONE


def _is_fooocus(values: Mapping[str, Any], texts: Mapping[str, str]) -> bool:
    named = (values.get("metadata_scheme"), texts.get("fooocus_scheme"))
    return "fooocus" in named or str(values.get("version")).startswith("Fooocus")


def _invokeai(texts: Mapping[str, str]) -> Written:
    """InvokeAI's three forms: since version 3, since 2, and its first."""
    values = _json(texts.get("invokeai_metadata", ""))
    if isinstance(values.get("positive_prompt"), str):
        return without_tags(values["positive_prompt"])
    image = _json(texts.get("sd-metadata", "")).get("image")
    prompt = image.get("prompt") if isinstance(image, dict) else None
    if isinstance(prompt, list):
        parts = [part.get("prompt") for part in prompt if isinstance(part, dict)]
        if len(parts) > 1:
            return Written(why="InvokeAI mixed several prompts")
        prompt = parts[0] if parts else None
    if prompt is None and (dream := _DREAM.match(texts.get("Dream", ""))):
        prompt = dream[1]
    if not isinstance(prompt, str):
        return NONE
    found = without_tags(_BRACKETS.sub("", prompt))
    return Written(found.prompt, (*found.left_out, *_BRACKETS.findall(prompt)), found.networks, found.why)


def _novelai(texts: Mapping[str, str]) -> Written:
    if not any("novelai" in texts.get(key, "").lower() for key in ("Software", "Source")):
        return NONE
    comment = _json(texts.get("Comment", ""))
    caption = comment.get("v4_prompt")
    caption = caption.get("caption") if isinstance(caption, dict) else None
    if isinstance(caption, dict) and caption.get("char_captions"):
        return Written(why="NovelAI was given prompts of several figures")
    prompt = texts.get("Description", comment.get("prompt"))
    return without_tags(prompt) if isinstance(prompt, str) else NONE


def _easy_diffusion(texts: Mapping[str, str]) -> Written:
    """Easy Diffusion writes each setting as an entry of its own."""
    for prompt, negative in (("prompt", "negative_prompt"), ("Prompt", "Negative Prompt")):
        if prompt in texts and negative in texts and not _json(texts[prompt]):
            return without_tags(texts[prompt])
    return NONE


def _json(text: str) -> dict[str, Any]:
    """The object in a text, empty for anything else."""
    if not text.lstrip().startswith("{"):
        return {}
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}


# -- files ---------------------------------------------------------------------------------------------------


def _entries(path: Path) -> tuple[dict[str, str], list[str]]:
    """The text entries of a PNG, and the comments in the EXIF of an image file; pixels are not decoded."""
    from PIL import Image, features

    from guda_cli.data.images import DECODING_ERRORS, opened_for_texts

    texts: dict[str, str] = {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            formats = (*_FORMATS, "AVIF") if features.check("avif") else _FORMATS
            with opened_for_texts(path, formats) as image:
                if image.format == "PNG":
                    found = {key: image.info.get(key) for key in _KEYS}
                    texts = {key: str(value) for key, value in found.items() if isinstance(value, str)}
                if image.format == "PNG" and "exif" not in image.info:
                    return texts, []  # asked for it, Pillow would decode the pixels to look behind them
                exif = image.getexif()
                own = [exif.get(tag) for tag in (_USER_COMMENT, _DESCRIPTION, _MAKE, _MODEL)]
                comments = [exif.get_ifd(_EXIF_IFD).get(_USER_COMMENT), *own]
    except (*DECODING_ERRORS, Image.DecompressionBombError):
        return texts, []
    return texts, [text for comment in comments if (text := _comment(comment)) is not None]


def _comment(value: object) -> str | None:
    """The text of an EXIF comment: of a user comment 8 bytes name its encoding (Exif 2.32, 4.6.5)."""
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
