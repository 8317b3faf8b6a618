"""Prompts as AUTOMATIC1111 and its relatives write them: one text with the settings after it.

Forge, SD.Next, Civitai and many nodes of ComfyUI write the same; SwarmUI's and A1111's tags of networks are
told from the prompt here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

LONGEST_PROMPT = 20_000  # characters


@dataclass(frozen=True)
class Written:
    """What a program wrote of an image's prompt."""

    prompt: str | None = None
    """What the text encoder read; "" is the empty prompt, None where none is named."""
    left_out: tuple[str, ...] = ()
    """Parts of the text that no encoder reads, such as `<lora:name:0.8>`."""
    networks: tuple[tuple[str, float | None], ...] = field(default=(), compare=False)
    """Names and weights of the networks (LoRA and others) that the image was made with, as far as told."""
    why: str = ""
    """Why it names none, where a program known to write prompts wrote something."""


NONE = Written()

# Both programs read `<kind:anything>` as a tag, whatever its kind.
_TAG = re.compile(r"<(\w+):([^<>]+)>")
# SwarmUI: what follows is the prompt of a part of the image, or of another stage.
_SECTION = re.compile(
    r"<(?:segment|object|region|extend):[^<>]*>|<(?:refiner|video|videoswap|edit|base)\b[^<>]*>"
)
_NETWORKS = {"lora", "lyco", "hypernet", "locon", "loha", "lokr", "dora", "oft", "boft", "glora"}
_NEGATIVE = re.compile(r"^Negative prompt:", re.MULTILINE)
_SETTINGS = re.compile(r"^Steps: \d+(?:,|\s*$)", re.MULTILINE)


def infotext(entry: str) -> Written:
    """The prompt of a text of parameters: what stands before the negative prompt and the settings.

    The settings are the last line that begins with `Steps: N,`: a prompt may have such lines, too. Without a
    negative prompt or settings after it a text is somebody's remark, and names no prompt.
    """
    settings = [found.start() for found in _SETTINGS.finditer(entry)]
    negative = _NEGATIVE.search(entry, 0, settings[-1] if settings else len(entry))
    if negative is None and not settings:
        return NONE
    return without_tags(entry[: negative.start() if negative else settings[-1]])


def without_tags(text: str) -> Written:
    """`text` as a prompt without the tags of networks; `""` where nothing else is in it."""
    whole = plain(text)
    if whole is None:
        return Written(why="its prompt is longer than any text encoder reads")
    tags, networks = [], []
    for tag in _TAG.finditer(whole):
        tags.append(tag[0])
        if tag[1].lower() in _NETWORKS:
            name, *weights = tag[2].split(":")
            networks.append((name.strip(), _number(weights[0] if weights else None)))
    kept = re.sub(r"[ \t]{2,}", " ", _TAG.sub("", whole)) if tags else whole
    return Written(kept.strip(), tuple(tags), tuple(networks))


def without_sections(text: str) -> Written:
    """A prompt of SwarmUI: `without_tags`, and only what is said of the whole image."""
    section = _SECTION.search(text)
    found = without_tags(text[: section.start()] if section else text)
    if section is None or found.prompt is None:
        return found
    return Written(found.prompt, (*found.left_out, text[section.start() :].strip()), found.networks)


def plain(text: str) -> str | None:
    """`text` without the space around it, None when it is unreasonably long; every character encodes."""
    if len(text) > LONGEST_PROMPT:
        return None
    return text.encode("utf-8", "replace").decode("utf-8").replace("\0", "").strip()


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None
