"""Names of an adapter's tensors: the factor that each is, and the module of the pipeline it belongs to.

Trainers name modules by diffusers, by CompVis's latent-diffusion or by OpenCLIP, with dots or (kohya's
trainer, LyCORIS) with underscores in their place; peft puts an adapter's name between factor and `weight`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

Place = tuple[str, str]
"""A part (`unet` or `text_encoder`) and a module of it, as diffusers and transformers name it."""

PEFT = "base_model.model."
_FACTORS = (  # stem, factor and peft's adapter name, which older files do not have
    re.compile(r"(?P<stem>.+?)\.lora_(?P<factor>[AB])(?:\.(?P<adapter>.+))?\.weight"),
    re.compile(r"(?P<stem>.+?)\.lora_(?P<factor>down|up)\.weight"),
    re.compile(r"(?P<stem>.+?)\.lora_linear_layer\.(?P<factor>down|up)\.weight"),
    re.compile(r"(?P<stem>.+?)[._]lora\.(?P<factor>down|up)\.weight"),
)
_ALPHA = re.compile(r"(?P<stem>.+?)(?:[._]lora|\.lora_linear_layer)?\.alpha")
_KINDS = {"A": "down", "B": "up", "down": "down", "up": "up"}

_NEUTRAL = (PEFT, "module.", "_orig_mod.")  # of peft, of DataParallel, of torch.compile
_STARTS = {
    "unet": ("unet.", "lora_unet.", "model.diffusion_model.", "diffusion_model."),
    "text_encoder": ("text_encoder.", "lora_te.", "lora_te1.", "cond_stage_model.", "clip_l."),
}
_FLAT_STARTS = {
    "unet": ("lora_unet_", "lora_", "lycoris_"),
    "text_encoder": ("lora_te_", "lora_te1_", "lora_", "lycoris_"),
}
KOHYA = ("lora_unet_", "lora_te_", "lora_te1_")
_SIMILAR = re.compile(  # what every network of this kind has somewhere in a module's name
    r"(down|up)_blocks[._]\d|mid_block[._]|(in|out)put_blocks[._]\d|middle_block[._]\d"
    r"|time_emb(ed(ding)?)?[._]|conv_(in|out)\b|encoder[._]layers[._]\d|resblocks[._]\d"
)

_RESNET = {
    "conv1": "in_layers.2",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
_TOP = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "conv_out": "out.2",
}
_MIDDLE = {"resnets.0": "0", "attentions.0": "1", "resnets.1": "2"}
_OLD_TEXT = {"q_proj": "to_q", "k_proj": "to_k", "v_proj": "to_v", "out_proj": "to_out"}
_OPEN_CLIP = {"mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj", "self_attn.out_proj": "attn.out_proj"}


@dataclass(frozen=True)
class TensorName:
    """What the name of a tensor says: its module's name as written, and what the tensor is of it."""

    stem: str
    kind: str
    """`down`, `up` or `alpha`."""
    adapter: str = ""
    """peft's name of the adapter, where the file has one."""


def read_name(name: str) -> TensorName | None:
    """The parts of a tensor's name; None when it is no factor and no alpha."""
    for pattern in _FACTORS:
        match = pattern.fullmatch(name)
        if match:
            found = match.groupdict()
            return TensorName(found["stem"], _KINDS[found["factor"]], found.get("adapter") or "")
    match = _ALPHA.fullmatch(name)
    return TensorName(match["stem"], "alpha") if match else None


def is_similar(stem: str) -> bool:
    """Whether this may be a module of a network of Stable Diffusion's kind, this one or another."""
    return bool(_SIMILAR.search(stem))


class Modules:
    """Where the modules of a pipeline are found under all the names that adapters have for them."""

    def __init__(self, modules: Mapping[str, Iterable[str]]) -> None:
        self._dotted: dict[str, dict[str, str]] = {}
        self._flat: dict[str, Place] = {}
        for part, names in modules.items():
            aliases = _aliases(part, sorted(names))
            self._dotted[part] = aliases
            for alias, module in aliases.items():
                for start in _FLAT_STARTS[part]:
                    for inner in ("", *_STARTS[part]):
                        self._flat[start + f"{inner}{alias}".replace(".", "_")] = part, module

    def find(self, stem: str, bare: str) -> Place | None:
        """The module that `stem` names, of the part `bare` first where the name does not say its part."""
        if stem in self._flat:
            return self._flat[stem]
        name, said = _without_starts(stem.replace(".processor.", "."))
        for part in (said,) if said else (bare, *(part for part in self._dotted if part != bare)):
            if name in self._dotted[part]:
                return part, self._dotted[part][name]
        return None


def _without_starts(name: str) -> tuple[str, str]:
    """`name` without what stands before a module's name, and the part that this says ("" for none)."""
    said, before = "", None
    while before != name:
        before = name
        for start in _NEUTRAL:
            name = name.removeprefix(start)
        for part, starts in _STARTS.items():
            for start in starts:
                if not said and name.startswith(start):
                    name, said = name.removeprefix(start), part
    return name, said


def _aliases(part: str, modules: list[str]) -> dict[str, str]:
    """Dotted names of the modules of `part`, their own among them, each with the module."""
    found = {name: name for name in modules}
    for name in modules:
        others = _text_names(name) if part == "text_encoder" else ()
        found.update((other, name) for other in others)
    if part == "unet":
        found.update((old, new) for new, old in compvis_names(modules).items())
        found.update((a.removesuffix(".0"), m) for a, m in [*found.items()] if a.endswith(".to_out.0"))
    return found


def _text_names(name: str) -> Iterable[str]:
    """Other names of a module of `CLIPTextModel`: below its prefix, by old diffusers, by OpenCLIP."""
    head, _, leaf = name.rpartition(".")
    old = f"{head}.{_OLD_TEXT[leaf]}" if leaf in _OLD_TEXT and head.endswith("self_attn") else name
    for start in ("", "text_model.", "transformer.text_model."):
        yield from (start + name, start + old)
    match = re.fullmatch(r"encoder\.layers\.(\d+)\.(.+)", name)
    if match and match[2] in _OPEN_CLIP:
        place = f"transformer.resblocks.{match[1]}.{_OPEN_CLIP[match[2]]}"
        yield from (place, f"model.{place}")


def compvis_names(modules: Iterable[str]) -> dict[str, str]:
    """Names by CompVis of the modules (with weights) of a `UNet2DConditionModel`, by those of diffusers.

    There the blocks are numbered through: a residual layer with its attention has a number, a downsampler
    has one of its own, an upsampler has that of the layer before it.
    """
    names = list(modules)
    numbers = _numbers(names)
    out = {name: _TOP[name] for name in names if name in _TOP}
    for name in names:
        match = re.fullmatch(r"(down|up)_blocks\.(\d+)\.(\w+)\.(\d+)\.(.+)", name)
        if name.startswith("mid_block."):
            _, kind, i, rest = name.split(".", 3)
            place = _MIDDLE.get(f"{kind}.{i}")
            start = place and f"middle_block.{place}"
        elif match:
            side, block, kind, i, rest = match.groups()
            start = numbers.get((side, int(block), kind, int(i)))
        else:
            continue
        if start:
            rest = "op" if kind == "downsamplers" else _RESNET.get(rest, rest) if kind == "resnets" else rest
            out[name] = f"{start}.{rest}"
    return out


def _numbers(names: Iterable[str]) -> dict[tuple[str, int, str, int], str]:
    """`input_blocks.<n>.<i>` or `output_blocks.<n>.<i>` of each layer: (side, block, kind, index in it)."""
    places = {
        (match[1], int(match[2]), match[3], int(match[4]))
        for match in (re.match(r"(down|up)_blocks\.(\d+)\.(\w+)\.(\d+)\.", name) for name in names)
        if match
    }
    out = {}
    for side, first in (("down", 1), ("up", 0)):
        start, n = ("input_blocks" if side == "down" else "output_blocks"), first
        for block in sorted({b for s, b, _, _ in places if s == side}):
            inside = {(kind, i) for s, b, kind, i in places if (s, b) == (side, block)}
            for i in sorted(i for kind, i in inside if kind == "resnets"):
                out[side, block, "resnets", i] = f"{start}.{n}.0"
                out[side, block, "attentions", i] = f"{start}.{n}.1"
                n += 1
            if ("downsamplers", 0) in inside:
                out[side, block, "downsamplers", 0] = f"{start}.{n}.0"
                n += 1
            attends = any(kind == "attentions" for kind, _ in inside)
            out[side, block, "upsamplers", 0] = f"{start}.{n - 1}.{2 if attends else 1}"
    return out
