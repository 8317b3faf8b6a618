"""Where an image drawn by `guda sample` comes from: its noise, its settings and the model's weights.

Nothing here raises: a damaged or hostile entry names no origin.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path

from guda_cli.data import classes, embedded

PNG_KEY = "guda:sample"
"""Keyword of the PNG text chunk in which `guda sample` writes an image's origin."""
SAMPLERS = ("ddim", "ddpm")

_LONGEST = 1000  # characters; what guda writes stays below 250
_LONGEST_CONDITION = 20_000
_MOST = 1 << 63
_MOST_STEPS = 1_000_000
_DIGEST = re.compile(r"[0-9a-f]{64}")
_FIELDS = {"index", "seed", "sampler", "steps", "guidance", "model"}


@dataclass(frozen=True)
class Origin:
    """What an image was drawn from: enough to draw it again, or with another model."""

    index: int
    """Its noise is that of image `index` under `seed`."""
    seed: int
    sampler: str
    steps: int
    guidance: float
    model: str
    """SHA-256 (hex) of the stored weights."""
    condition: str | None = None
    """The class or prompt it was drawn with; None for unconditional models."""

    @property
    def text(self) -> str:
        """All but the condition, as compact JSON; `parse` reads it."""
        values = {name: getattr(self, name) for name in sorted(_FIELDS)}
        return json.dumps(values, separators=(",", ":"))


def parse(text: object, condition: object = None) -> Origin | None:
    """The origin in a text as `Origin.text` writes it, None for anything else."""
    if not isinstance(text, str) or len(text) > _LONGEST:
        return None
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(values, dict) or set(values) != _FIELDS:
        return None
    if condition is not None:
        if not isinstance(condition, str) or len(condition) > _LONGEST_CONDITION:
            return None
        condition = condition.encode("utf-8", "replace").decode("utf-8")
    found = Origin(**values, condition=condition)
    return found if _is_sound(found) else None


def _is_sound(origin: Origin) -> bool:
    whole = (origin.index, origin.seed, origin.steps)
    if not all(isinstance(value, int) and not isinstance(value, bool) for value in whole):
        return False
    if not (0 <= origin.index < _MOST and abs(origin.seed) < _MOST and 0 < origin.steps <= _MOST_STEPS):
        return False
    if isinstance(origin.guidance, bool) or not isinstance(origin.guidance, (int, float)):
        return False
    if not 0 <= origin.guidance < _MOST or not math.isfinite(origin.guidance):
        return False
    return (
        origin.sampler in SAMPLERS and isinstance(origin.model, str) and bool(_DIGEST.fullmatch(origin.model))
    )


def read_origin(path: Path) -> Origin | None:
    """The origin in a PNG file's text, None where there is none; pixels are not decoded."""
    from PIL import Image

    from guda_cli.data.images import DECODING_ERRORS, opened_for_texts

    try:
        with opened_for_texts(path, ("PNG",)) as image:
            texts = {key: image.info.get(key) for key in (PNG_KEY, embedded.PNG_KEY, classes.PNG_KEY)}
    except (*DECODING_ERRORS, Image.DecompressionBombError):
        return None
    prompt = texts[embedded.PNG_KEY]
    # PIL's text is a subclass of str.
    condition = texts[classes.PNG_KEY] if prompt is None else prompt
    return parse(texts[PNG_KEY], condition if condition is None else str(condition))
