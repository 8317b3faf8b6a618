"""An adapter's safetensors file, read tensor by tensor, and the settings that come with it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from guda_cli.checkpoints.adapter_config import LoraConfig, read_config
from guda_cli.checkpoints.adapter_kinds import GIVE
from guda_cli.checkpoints.adapter_names import PEFT
from guda_cli.checkpoints.files import check_no_pickle, json_object, read_json
from guda_cli.diffusion import networks
from guda_cli.errors import DataError

LONGEST_NAME = 500
"""Letters of a tensor's name; longer ones could keep the patterns of names busy for ever."""
_MOST_TENSORS = 50_000  # Stable Diffusion has 1,100 tensors: far more is no adapter of it
_MOST_SETTINGS = 2**22  # letters; with two patterns a module they have 200,000
_METADATA = "lora_adapter_metadata"  # where diffusers keeps the settings of an adapter, as JSON


@dataclass
class AdapterFile:
    """A LoRA file that is open, with what stands in its header."""

    path: Path
    file: Any
    shapes: dict[str, list[int]]
    metadata: dict[str, str]
    notes: list[str] = field(default_factory=list)

    def read(self, name: str) -> Tensor:
        """One tensor as float32; DataError unless it is real and finite."""
        try:
            value = self.file.get_tensor(name)
            if value.is_complex() or value.dtype == torch.bool:
                raise TypeError(f"it is of {value.dtype}")
            tensor: Tensor = value.float()
        except (AttributeError, LookupError, RuntimeError, SafetensorError, TypeError, ValueError) as err:
            raise DataError(f"{self.path}: '{name}' is no tensor of numbers", why=str(err)) from None
        networks.check_finite({name: tensor}, str(self.path))
        return tensor


def opened(path: Path) -> Any:
    """The safetensors file `path` open; DataError for pickles and damaged files."""
    check_no_pickle(path)
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError, ValueError) as err:
        raise DataError(f"{path} is not a readable safetensors file", why=str(err)) from None


def header(path: Path, file: Any) -> AdapterFile:
    """What stands in the header of the open `file`; DataError where it has more than an adapter can have."""
    names = sorted(file.keys())
    if len(names) > _MOST_TENSORS or any(len(name) > LONGEST_NAME for name in names):
        raise DataError(
            f"{path} is no LoRA of Stable Diffusion",
            why=f"it has {len(names):,} tensors, with names of up to {max(map(len, names)):,} letters",
            fix=GIVE,
        )
    shapes = {name: list(file.get_slice(name).get_shape()) for name in names}
    return AdapterFile(path, file, shapes, dict(file.metadata() or {}))


def settings_of(found: AdapterFile, part: str) -> LoraConfig | None:
    """What the file's metadata or peft's file beside it say; None where there is neither."""
    text, path = found.metadata.get(_METADATA), found.path
    beside = path.parent / "adapter_config.json"
    if text is not None:
        where = f"{path} ({_METADATA})"
        _check_size(len(text), where)
        entries = json_object(text, Path(where))
        values = {k.removeprefix(f"{part}."): v for k, v in entries.items() if k.startswith(f"{part}.")}
        return read_config(values, where) if values else None
    by_peft = any(name.startswith(PEFT) for name in found.shapes)
    own = path.name.startswith("adapter_model")
    if own and by_peft and not beside.is_file():
        raise DataError(
            f"{path.parent} has no adapter_config.json",
            why="the scale of peft's factors (lora_alpha) stands there",
            fix="give the folder as peft saved it",
        )
    if not beside.is_file() or not (own or by_peft):
        return None
    others = [] if own else [each.name for each in path.parent.glob("*.safetensors") if each != path]
    if others:
        raise DataError(
            f"{path}: whose settings adapter_config.json has is not said",
            why=f"{min(others)} lies beside it, too",
            fix="give a folder with this LoRA and its own adapter_config.json",
        )
    _check_size(beside.stat().st_size, str(beside))
    return read_config(read_json(beside), str(beside))


def _check_size(size: int, where: str) -> None:
    if size > _MOST_SETTINGS:
        raise DataError(f"{where} has {size:,} letters", why=f"settings have {_MOST_SETTINGS:,} at the most")
