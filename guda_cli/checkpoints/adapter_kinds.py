"""Adapters that are no LoRA of Stable Diffusion 1.x or 2.x, told by the names of their tensors."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from guda_cli.checkpoints.adapter_names import KOHYA, read_name
from guda_cli.errors import DataError

ONLY = "only W + (alpha / r) B A is read"
MERGE = "merge it into its model with the tool that made it, and give that model"
BASES = "guda reads adapters of Stable Diffusion 1.x and 2.x"
GIVE = "give a LoRA that was trained on Stable Diffusion 1.x or 2.x"

_KINDS = {  # of an adapter as a whole
    r"\.(dora_scale|lora_magnitude_vector(\..+)?)": "DoRA",
    r"\.lora_mid\.weight": "LoCon with a Tucker (CP) core",
    r"[._]hada_\w+": "LoHa",
    r"[._]lokr_\w+": "LoKr",
    r"[._]boft_\w+(\..+)?": "BOFT",
    r"(^oft_|[._]oft_)\w+(\..+)?": "OFT",
    r"\.(on_input|ia3_l(\..+)?)": "(IA)^3",
    r"\.([ab][12]|bm)\.weight|[._]glora_\w+(\..+)?": "GLoRA",
    r"[._]p?vera_\w+(\..+)?": "VeRA",
    r"\.lora_E(\..+)?": "AdaLoRA",
    r"\.lora_embedding_[AB](\..+)?": "a LoRA of token embeddings",
    r"\.(set_weight|set_bias|reshape_weight)": "whole weights",
    r"\.diff(_b|_m)?": "full differences",
    r"\.(\w+_custom_diffusion(_\w+)?(\..+)?)": "Custom Diffusion",
    r"\.(vblora_\w+|fourierft_\w+|waveft_\w+|hra_u|bone_\w+|miss_\w+|road_\w+|shira_\w+|c3a_\w+"
    r"|randlora_\w+|ln_tuning_\w+|delora_\w+|gralora_\w+|hira_\w+)(\..+)?": "another method of peft",
}
_BESIDE = {  # what may lie beside the factors of a plain LoRA
    r"(^|\.)bundle_emb\..+": "an embedding (textual inversion) bundled with it",
    r"\.(w_norm|b_norm)": "trained norms (w_norm, b_norm)",
    r"\.scalar": "trained scales (scalar)",
    r"\.lora_(B|up)(\..+)?\.bias": "biases of its factors (lora_bias)",
    r".+\.base_layer\.(weight|bias)": "the network's own weights (base_layer)",
    r".+\.modules_to_save\..+": "modules trained as a whole (modules_to_save)",
    r".+\.bias": "trained biases",
}
_EMBEDDING = r"(.*\.)?string_to_param(\..+)?|string_to_token(\..+)?|emb_params|clip_[lg]|t5xxl|<.+>"
_OTHER_FILES = {
    r"(320|640|768|1024|1280|2048)\.[01]\.linear\..+": "a hypernetwork",
    r"lora_controlnet": "a ControlLoRA",
    r"lllite_.+": "a ControlNet-LLLite",
    r"(control_model|controlnet_\w+|input_hint_block)\..+": "a ControlNet",
    r"(ip_adapter|image_proj)\..+": "an IP-Adapter",
    r"(adapter\.body|body)\.\d+\..+": "a T2I-Adapter",
    r"(.+\.)?motion_modules\..+": "a motion module of AnimateDiff",
    r"(unet|text_encoder):\d+:(up|down|rank)": "a LoRA with numbers in the place of modules' names",
}
_FAMILIES = {  # parts and modules that Stable Diffusion 1.x and 2.x do not have
    r"lora_te3_|text_encoder_3\.|.*joint_blocks[._]\d": "Stable Diffusion 3",
    r".*(double_blocks|single_blocks|single_transformer_blocks)[._]\d": "Flux",
    r"lora_te2_|text_encoder_2\.|clip_g\.|.*label_emb[._]|.*add_embedding[._]": "Stable Diffusion XL",
    r"lora_prior_|prior\.": "Stable Cascade",
    r"(lora_|base_model\.model\.)?transformer[._](?!text_model|resblocks)": "a diffusion transformer",
    r"(base_model\.model\.|diffusion_model\.)*(blocks|layers|transformer_blocks|model\.layers)\.\d": (
        "a transformer (a newer image or video model, or a language model)"
    ),
}
_DEEP = re.compile(r"(attentions|(in|out)put_blocks|middle_block)[._\d]+transformer_blocks[._][1-9]")
_WIDTHS = {768: "Stable Diffusion 1.x", 1024: "Stable Diffusion 2.x", 2048: "Stable Diffusion XL"}
_READS_TEXT = re.compile(r".*attn2[._](processor\.)?to_[kv](_lora)?")


def check_kind(path: Path, shapes: Mapping[str, Sequence[int]]) -> None:
    """DataError that names the kind of the adapter in `path` when its tensors tell another than a LoRA.

    `shapes` are those of its tensors. Nothing is raised for names of which nothing is known.
    """
    if not shapes:
        raise DataError(f"{path} has no tensors", fix="download it again")
    for pattern, kind in _OTHER_FILES.items():
        name = _first(pattern, shapes, whole=True)
        if name is not None:
            raise DataError(f"{path} is no LoRA but {kind}", why=f"it has '{name}'; {ONLY}", fix=GIVE)
    factors = any(map(read_name, shapes))
    if not factors and (_first(_EMBEDDING, shapes, whole=True) or _is_embedding(shapes)):
        raise DataError(
            f"{path} is no LoRA but an embedding (textual inversion)",
            why=f"it has '{min(shapes)}' and nothing of a network; {ONLY}",
            fix=GIVE,
        )
    for pattern, kind in _KINDS.items():
        name = _first(pattern, shapes)
        if name is not None:
            raise DataError(
                f"{path} is not a plain LoRA but {kind}", why=f"it has '{name}'; {ONLY}", fix=MERGE
            )
    adapter = factors or any(name.startswith(KOHYA) for name in shapes)
    for pattern, kind in _BESIDE.items():
        name = _first(pattern, shapes)
        if name is not None and adapter:
            raise DataError(
                f"{path} is not a plain LoRA: it has {kind}", why=f"it has '{name}'; {ONLY}", fix=MERGE
            )
    for pattern, family in _FAMILIES.items():
        match = next((name for name in shapes if re.match(pattern, name)), None)
        if match is not None and adapter:
            raise other_family(path, family, match)


def family(shapes: Mapping[str, Sequence[int]], metadata: Mapping[str, str]) -> str:
    """The model family that an adapter says it is for, "" when it says none.

    By the size of the text embeddings that its cross-attention reads, by its depth, by what kohya's trainer
    and others write into the metadata.
    """
    for name, shape in shapes.items():
        found = read_name(name)
        if found and found.kind == "down" and _READS_TEXT.fullmatch(found.stem) and len(shape) > 1:
            if shape[1] in _WIDTHS:
                return _WIDTHS[shape[1]]
            break
    if any(_DEEP.search(name) for name in shapes):
        return "Stable Diffusion XL"
    said = metadata.get("modelspec.architecture") or metadata.get("ss_base_model_version") or ""
    return said[:60] if said.isprintable() else ""


def other_family(path: Path, family: str, name: str) -> DataError:
    """The error for an adapter of another model family, which the tensor `name` tells."""
    return DataError(f"{path} is an adapter for {family}", why=f"it has '{name}'; {BASES}", fix=GIVE)


def _first(pattern: str, names: Iterable[str], whole: bool = False) -> str | None:
    """The first name that ends with `pattern`, or is it as a whole."""
    compiled = re.compile(pattern if whole else f"(?:{pattern})$")
    look = compiled.fullmatch if whole else compiled.search
    return next((name for name in names if look(name)), None)


def _is_embedding(shapes: Mapping[str, Sequence[int]]) -> bool:
    """Whether these are vectors for a text encoder under a word as their name, as diffusers saves them."""
    return len(shapes) <= 4 and all(
        "." not in name and 1 <= len(shape) <= 2 and shape[-1] in (768, 1024, 1280)
        for name, shape in shapes.items()
    )
