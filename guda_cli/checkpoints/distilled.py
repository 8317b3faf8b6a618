"""Models distilled to a few steps, told by configuration or name: their likelihood bound means little."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import PurePath
from typing import Any

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_MARKS = {  # words of a name, in lower case, each between hyphens, and what they are a mark of
    r"-(?:sd|sdxl|xl|flux)?turbo-": "Turbo",
    r"-(?:sd|sdxl|xl)?lightning-": "Lightning",
    r"-schnell-": "schnell",
    r"-lcm-": "LCM",
    r"-tcd-": "TCD",
    r"-dmd-": "DMD",
    r"-(?:hypersd|hypersdxl|hyper-(?:sd|sdxl|xl|flux|vae|lora|\d+-steps?))-": "Hyper-SD",
    r"-[1248]-steps?-": "a few steps",
}
_GENERIC = {
    "model", "models", "pipeline", "unet", "transformer", "lora", "diffusion_pytorch_model",
    "pytorch_lora_weights", "adapter_model", "vae",
}  # fmt: skip
_INSTEAD = {
    "stable-diffusion": "the Stable Diffusion that it was made from",
    "sdxl": "stabilityai/stable-diffusion-xl-base-1.0",
    "sd3": "stabilityai/stable-diffusion-3.5-large or -medium",
    "flux": "black-forest-labs/FLUX.1-dev",
    "z-image": "Tongyi-MAI/Z-Image",
    "qwen-image": "Qwen/Qwen-Image",
}
"""What a family's distilled models are made from."""
_TRAILING = ("EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler")


def mark_of_name(place: str) -> str | None:
    """Which kind of distilled model the name of a folder, a file or a hub id says; None for others.

    Whole words alone count: those of "sd_xl_turbo_1.0" and "realVisXL_v40Turbo", not of "photo-turbos".
    """
    for name in _names(place):
        words = f"-{'-'.join(word.lower() for word in _WORD.findall(name))}-"
        for pattern, mark in _MARKS.items():
            if re.search(pattern, words):
                return mark
    return None


def _names(place: str) -> list[str]:
    """The last part of a path that says something: in the hub's cache the model's, else a file or folder."""
    parts = PurePath(place).parts
    cached = [part for part in parts if part.startswith("models--")]
    if cached:
        return [cached[-1].removeprefix("models--").partition("--")[2]]
    for part in reversed(parts):
        stem = part.removesuffix(".safetensors")
        if stem.lower() not in _GENERIC:
            return [stem]
    return []


def distilled(
    family: str, places: Iterable[str], network: Mapping[str, Any], scheduler: Mapping[str, Any]
) -> str | None:
    """A warning where a model looks distilled, None where it does not.

    `places` are what it was read from, `network` and `scheduler` its configurations.
    """
    why = _by_configuration(family, network, scheduler)
    for place in places:
        mark = mark_of_name(place)
        if mark:
            why = f"{mark} is in the name of {place}"
            break
    if why is None:
        return None
    instead = _INSTEAD.get(family)
    return (
        f"this looks like a model distilled to a few steps ({why}): it has no faithful ELBO, so its "
        "likelihood bound, and scores by it, mean little" + (f"; take its base, {instead}" if instead else "")
    )


def _by_configuration(family: str, network: Mapping[str, Any], scheduler: Mapping[str, Any]) -> str | None:
    if family == "flux" and not network.get("guidance_embeds"):
        return "the transformer reads no guidance (guidance_embeds), as FLUX.1-schnell"
    trails = scheduler.get("timestep_spacing") == "trailing" and scheduler.get("_class_name") in _TRAILING
    zero = scheduler.get("rescale_betas_zero_snr") or scheduler.get("prediction_type") == "v_prediction"
    if trails and not zero:
        return f"its {scheduler['_class_name']} has timestep_spacing: trailing, as SD-Turbo and SDXL-Turbo"
    return None
