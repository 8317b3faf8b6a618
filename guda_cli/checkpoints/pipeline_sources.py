"""What users have of a pipeline's model beside its folder: an adapter or a network over it, or one file.

All of it is read by diffusers' own loaders and converters; what they would leave out is refused by name.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from guda_cli.checkpoints.files import INDEX, check_no_pickle, is_hub_id
from guda_cli.checkpoints.lora_file import is_lora
from guda_cli.checkpoints.pipeline_folder import LORA_NAMES, locate
from guda_cli.checkpoints.pipeline_one_file import of_file, unpack
from guda_cli.checkpoints.pipeline_parts import Part, quiet_libraries
from guda_cli.checkpoints.weights import tensor_names
from guda_cli.errors import DataError, UsageError

_ADAPTER = "taken-over"


@dataclass(frozen=True)
class Found:
    """Where a model lies: its pipeline's folder, and what goes over it."""

    pipeline: Path
    network: Path | None = None
    """Folder of a network in place of the pipeline's own."""
    adapter: Path | None = None
    """File of a low-rank adapter."""
    parts: Mapping[str, Path] = field(default_factory=dict)
    """Folders in which other components lie than in the pipeline's, by their names."""
    notes: tuple[str, ...] = ()


@contextmanager
def found_at(source: str, base: str | None, made_of: Sequence[Part]) -> Iterator[Found]:
    """What is at `source`: a pipeline's folder or hub id, or something over the pipeline `base`.

    `made_of` are the components of its kind of pipeline, the network first: those in a checkpoint in one file
    are there as folders until the end. UsageError where a base is needed; DataError for what cannot be used.
    """
    path = Path(source).expanduser()
    if path.is_file():
        names = tensor_names(path)  # refuses pickles
        if is_lora(names) or any("lora_" in name or ".lokr_" in name for name in names):
            yield Found(locate(_needed(base, "a LoRA")), adapter=path)
            return
        pipeline = locate(_needed(base, "a checkpoint in one file"))
        with tempfile.TemporaryDirectory() as unpacked:
            inside = unpack(path, pipeline, made_of, Path(unpacked))
            rest = [part.name for part in made_of[1:] if not part.is_text and part.name not in inside]
            told = f"of {path} are the {', '.join(inside)}"
            notes = (told + (f"; of {pipeline} the {', '.join(rest)}" if rest else ""),)
            network = Path(unpacked) / made_of[0].name
            try:
                yield Found(pipeline, network, parts=dict.fromkeys(inside, Path(unpacked)), notes=notes)
            except DataError as err:
                raise of_file(err, path, Path(unpacked), inside) from None
        return
    if not path.is_dir() and not is_hub_id(source):
        raise DataError(
            f"no such file or folder: {source}", fix="give a folder, a .safetensors file or OWNER/MODEL"
        )
    folder = locate(source)
    adapters = [folder / name for name in LORA_NAMES if (folder / name).is_file()]
    if (folder / INDEX).is_file() or not (adapters or (folder / "config.json").is_file()):
        yield Found(folder)
    elif adapters:
        yield Found(locate(_needed(base, "a LoRA")), adapter=adapters[0])
    else:
        yield Found(locate(_needed(base, "a network without its pipeline")), network=folder)


def with_adapter(pipeline: Any, part: str, path: Path) -> dict[str, torch.Tensor]:
    """Weights of the network `part` of `pipeline` with the adapter in `path` added, by diffusers itself.

    DataError where the adapter changes other parts too, has tensors that belong to no module of the network,
    or is of a kind that the pipeline does not read.
    """
    check_no_pickle(path)
    network: torch.nn.Module = getattr(pipeline, part)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with quiet_libraries():
        try:
            read = pipeline.lora_state_dict(str(path))
        except Exception as err:  # noqa: BLE001 - its converters end in many kinds of error
            raise _unread(path, part, err) from None
        _check_adapter(read[0] if isinstance(read, tuple) else read, network, part, path)
        try:
            pipeline.load_lora_weights(str(path), adapter_name=_ADAPTER)
            pipeline.fuse_lora(components=[part])
            pipeline.unload_lora_weights()
        except Exception as err:  # noqa: BLE001 - sizes, ranks: peft and diffusers have many kinds of error
            raise _unread(path, part, err) from None
    after = network.state_dict()
    if after.keys() != before.keys() or all(torch.equal(after[name], before[name]) for name in before):
        raise DataError(f"{path} changes nothing of the {part}", why="it is of another kind of model")
    return dict(after)


def _unread(path: Path, part: str, err: Exception) -> DataError:
    why = " ".join(str(err).split())[:300] or type(err).__name__
    return DataError(
        f"{path}: the adapter does not belong to this {part}",
        why=why,
        fix="give the pipeline that it was trained on: --base PIPELINE",
    )


def _check_adapter(state: Mapping[str, Any], network: torch.nn.Module, part: str, path: Path) -> None:
    modules = {name for name, _ in network.named_modules()}
    other = sorted({name.split(".")[0] for name in state if not name.startswith(f"{part}.")})
    if other:
        raise DataError(
            f"{path}: the adapter changes the {', '.join(other)[:80]}, too",
            why=f"of such models only adapters of the {part} are taken over",
            fix="merge it with diffusers (fuse_lora, save_pretrained) and give that folder",
        )
    if not any(".lora_A" in name for name in state):
        from diffusers.utils import convert_unet_state_dict_to_peft

        state = convert_unet_state_dict_to_peft(dict(state))
    named = {name.removeprefix(f"{part}.").partition(".lora")[0] for name in state if ".lora" in name}
    lost = sorted(named - modules)
    if lost or not named:
        raise DataError(
            f"{path}: the adapter does not belong to this {part}",
            why=f"it has no module {lost[0]}" if lost else "no tensor of it is a low-rank factor",
            fix="give the pipeline that it was trained on: --base PIPELINE",
        )


def _needed(base: str | None, what: str) -> str:
    if base is None:
        raise UsageError(f"{what} needs the pipeline that it belongs to", fix="--base PIPELINE")
    return base
