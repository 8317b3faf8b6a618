"""Folders of adapters: the file that diffusers or peft wrote, or peft's folder a part of the pipeline."""

from __future__ import annotations

from pathlib import Path

from guda_cli.checkpoints.adapter_kinds import BASES, GIVE
from guda_cli.checkpoints.files import PICKLE_REASON, PICKLES
from guda_cli.checkpoints.pipeline_folder import LORA_NAMES
from guda_cli.checkpoints.weights import DIFFUSION
from guda_cli.errors import DataError

PARTS = ("unet", "text_encoder")
_CONFIG = "adapter_config.json"
_PICKLED = tuple(Path(name).stem + ending for name in LORA_NAMES for ending in PICKLES)
_WORDS = {"unet": "the unet", "text_encoder": "the text encoder"}


def adapters_in(folder: Path) -> list[tuple[str, Path]]:
    """The LoRA files of `folder`, each with the part that its names are of where they do not say it.

    [] when the folder has none. DataError where several may be meant, and where an adapter is there without
    weights in safetensors, so that none of them is left out in silence.
    """
    whole = [name for name in LORA_NAMES if (folder / name).is_file()]
    parts = [part for part in PARTS if _has_adapter(folder / part)]
    if _has_adapter(folder / "text_encoder_2"):
        raise DataError(
            f"{folder} is an adapter for Stable Diffusion XL",
            why=f"it has a second text encoder; {BASES}",
            fix=GIVE,
        )
    found = [*whole, *(f"{part}/" for part in parts)]
    if len(whole) > 1 or (whole and parts):
        raise DataError(
            f"{folder} has more than one adapter: {', '.join(found)}",
            why="which of them is meant is not said",
            fix=f"--from {folder / whole[0]}",
        )
    network = sorted(path.name for path in folder.glob(f"{DIFFUSION}*.safetensors"))
    if found and network:
        raise DataError(
            f"{folder} has a network and an adapter: {network[0]}, {found[0]}",
            why="which of them is meant is not said",
            fix=f"--from {folder / whole[0]}" if whole else "give a folder with the one that is meant",
        )
    if parts:
        return [(part, _weights_of(folder / part)) for part in parts]
    if whole or _has_adapter(folder):
        return [("unet", _weights_of(folder))]
    below = sorted(path.parent for path in folder.glob(f"*/{_CONFIG}"))
    if below and not (folder / "config.json").is_file():
        raise DataError(
            f"{folder} is no adapter, but has {len(below)} below it",
            why=", ".join(f"{path.name}/" for path in below[:4]),
            fix=f"--from {below[0]}",
        )
    return []


def told_of_adapter_beside(pipeline: Path) -> str:
    """A sentence where the folder of a whole pipeline has a LoRA, too, which is not added; else ""."""
    beside = [name for name in LORA_NAMES if (pipeline / name).is_file()]
    if not beside:
        return ""
    file = pipeline / beside[0]
    return f"the LoRA in {file} was not added: --from {file} --base {pipeline} adds it"


def told_of_other_part(adapters: list[tuple[str, Path]]) -> str:
    """A sentence where peft has saved an adapter beside the given one, for the other part; else ""."""
    if len(adapters) != 1:
        return ""
    folder = adapters[0][1].absolute().parent
    others = [part for part in PARTS if part != folder.name]
    if folder.name not in PARTS or len(others) != 1 or not _has_adapter(folder.parent / others[0]):
        return ""
    return f"the LoRA of {_WORDS[others[0]]} beside it was not added: give {folder.parent} for both"


def _has_adapter(folder: Path) -> bool:
    return any((folder / name).is_file() for name in (_CONFIG, *LORA_NAMES, *_PICKLED))


def _weights_of(folder: Path) -> Path:
    """The weights of the adapter in `folder`; DataError where there are none in safetensors."""
    for name in LORA_NAMES:
        if (folder / name).is_file():
            return folder / name
    pickles = [name for name in _PICKLED if (folder / name).is_file()]
    raise DataError(
        f"{folder}: the adapter has no weights in safetensors" + (f", only {pickles[0]}" if pickles else ""),
        why=PICKLE_REASON if pickles else f"no file {LORA_NAMES[1]} beside {_CONFIG}",
        fix="save it again with safe_serialization=True" if pickles else "give the folder as it was saved",
    )
