"""A pipeline of diffusers, component by component, as stored bytes and back: what each family names.

Nothing here knows a kind of model: a family says which components its pipeline has and of which classes.
Weights stay in float32 under their classes' own names. No torch at import.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guda_cli.checkpoints import supported
from guda_cli.checkpoints.components import PartsRead, json_part, tensors
from guda_cli.checkpoints.files import INDEX, read_config, read_text
from guda_cli.errors import DataError
from guda_cli.jsonable import canonical

if TYPE_CHECKING:
    import torch

    from guda_cli.diffusion.networks import Weights
    from guda_cli.diffusion.weight_file import PackedWeights

DIFFUSERS, TRANSFORMERS = "diffusers", "transformers"
_STEMS = {DIFFUSERS: "diffusion_pytorch_model", TRANSFORMERS: "model"}
_TOKENIZER_FILES = (".json", ".txt", ".model", ".jinja")


@dataclass(frozen=True)
class Part:
    """One component of a pipeline: its folder, and the classes it may be of (the first is written)."""

    name: str
    library: str
    classes: tuple[str, ...]
    optional: bool = False

    @property
    def is_text(self) -> bool:
        """Whether it is files of text (a tokenizer) and no network."""
        return self.name.startswith("tokenizer")

    @property
    def blobs(self) -> tuple[str, ...]:
        """Names of the stored outputs that hold it."""
        return (self.name,) if self.is_text else (self.name, f"{self.name}_config")


def blobs_of(parts: Sequence[Part]) -> tuple[str, ...]:
    """Names of the stored outputs that hold all `parts`."""
    return tuple(name for part in parts for name in part.blobs)


def read_index(folder: Path) -> dict[str, Any]:
    """What `model_index.json` of a pipeline's folder says; DataError where it is missing or asks for code."""
    return read_config(folder / INDEX, "pipeline index (model_index.json)", "give the folder of a pipeline")


def has_part(index: Mapping[str, Any], part: Part) -> bool:
    """Whether the index names a class for the component."""
    entry = index.get(part.name)
    return isinstance(entry, list) and len(entry) == 2 and bool(entry[1])


def check_index(index: Mapping[str, Any], parts: Sequence[Part], where: str) -> None:
    """DataError unless each of `parts` that has to be there is, and none is of another class."""
    for part in parts:
        entry = index.get(part.name)
        if not has_part(index, part):
            if not part.optional:
                raise DataError(
                    f"{where}: the pipeline has no {part.name}",
                    why=f"this kind of pipeline needs a {part.classes[0]}",
                )
            continue
        library, name = entry if isinstance(entry, list) else ("", "")
        if library not in (DIFFUSERS, TRANSFORMERS):
            raise DataError(
                f"{where}: the {part.name} is a class of its own module ({library!r:.60})",
                why="code that comes with a model is never run, and without it this is another model",
            )
        if name not in part.classes:
            raise DataError(
                f"{where}: the {part.name} is a {name}", why="supported is " + " or ".join(part.classes)
            )


def read_part(folder: Path, part: Part) -> dict[str, bytes | PackedWeights]:
    """The component in `folder`, by the names of its blobs, empty ones where an optional one is absent.

    DataError where weights and configuration do not fit, for pickles, damaged files and code of its own.
    """
    own = folder / part.name
    if not own.is_dir():
        if part.optional:
            return nothing_of(part)
        raise DataError(f"the pipeline in {folder} has no {part.name}/")
    if part.is_text:
        return {part.name: canonical(_text_files(own))}
    weights, config = read_network(own, part)
    return {part.name: weights, f"{part.name}_config": canonical(config)}


def nothing_of(part: Part) -> dict[str, bytes | PackedWeights]:
    """What is stored of an optional component that is not there."""
    from guda_cli.diffusion.weight_file import PackedWeights

    empty = canonical({})
    return {
        blob: empty if part.is_text or blob != part.name else PackedWeights({}, part.name)
        for blob in part.blobs
    }


def read_network(folder: Path, part: Part) -> tuple[PackedWeights, dict[str, Any]]:
    """Weights and configuration of the network in `folder`, which is a `part`; DataError as `read_part`."""
    from guda_cli.checkpoints.weights import read_weights
    from guda_cli.diffusion.weight_file import PackedWeights

    config = supported.settings(read_config(folder / "config.json"), str(folder))
    if part.library == TRANSFORMERS:
        config = {key: "float32" if key in ("dtype", "torch_dtype") else config[key] for key in config}
    where = f"{folder}: the {part.name}"
    weights, _ = read_weights(folder, _STEMS[part.library], f"the {part.name}", lambda header: None)
    if part.library == TRANSFORMERS:
        open_transformer(part, config, weights, where)
    else:
        weights = fitting(_empty(part, config, str(folder)), weights, where)
    return PackedWeights(weights, where, single=True), config


def fitting(
    network: torch.nn.Module, weights: Mapping[str, torch.Tensor], where: str
) -> dict[str, torch.Tensor]:
    """`weights` of `network`; DataError where they are not all of them."""
    wanted, found = network.state_dict(), weights
    extra = [name for name in found if name not in wanted]
    missing = [name for name in wanted if name not in found]
    wrong = [name for name in wanted if name in found and found[name].shape != wanted[name].shape]
    _refuse_misfits(where, missing, extra, wrong)
    return {name: found[name] for name in wanted}


def _refuse_misfits(where: str, missing: Iterable[str], extra: Iterable[str], wrong: Iterable[str]) -> None:
    told = {"is missing": missing, "is not of this network": extra, "has another shape": wrong}
    for what, found in told.items():
        names = sorted(found)
        if names:
            raise DataError(
                f"{where} does not fit its configuration",
                why=f"the tensor '{names[0]}' {what}" + (f", and {len(names) - 1} more" if names[1:] else ""),
                fix="take weights and config.json of one model",
            )


def open_transformer(part: Part, config: Mapping[str, Any], weights: Weights, where: str) -> Any:
    """A network of transformers with these weights, under whatever names its class has known them by.

    Frozen, in float32. DataError where weights are missing or left over.
    """
    made_of = getattr(import_module(part.library), _class_of(part, config))
    with tempfile.TemporaryDirectory() as folder:
        write_network(Path(folder), part, weights, config)
        try:
            with quiet_libraries():
                network, told = made_of.from_pretrained(
                    folder, local_files_only=True, use_safetensors=True, output_loading_info=True
                )
        except Exception as err:  # noqa: BLE001 - its readers end in many kinds of error
            why = " ".join(str(err).split())[:300] or type(err).__name__
            raise DataError(f"{where} cannot be opened as {made_of.__name__}", why=why) from None
    extra = [name for name in told["unexpected_keys"] if not name.endswith("position_ids")]
    _refuse_misfits(where, told["missing_keys"], extra, [str(one) for one in told["mismatched_keys"]])
    return network.float().eval().requires_grad_(False)


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """Meanwhile diffusers and, where it is installed, transformers say errors only."""
    from diffusers.utils import logging

    loggers: list[Any] = [logging]
    shown = True
    if find_spec(TRANSFORMERS) is not None:
        loggers.append(import_module(TRANSFORMERS).logging)
        shown = loggers[-1].is_progress_bar_enabled()
    before = [logger.get_verbosity() for logger in loggers]
    for logger in loggers:
        logger.set_verbosity_error()
        logger.disable_progress_bar()
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.set_verbosity(level)
            if shown:
                logger.enable_progress_bar()


def load_part(part: Part, parts: PartsRead) -> Any:
    """The component itself, in float32 and frozen, or the tokenizer; None where it is not there."""
    if _absent(part, parts):
        return None
    if part.is_text:
        return load_tokenizer(part, parts)
    config, weights = json_part(parts, f"{part.name}_config"), tensors(parts, part.name)
    if part.library == TRANSFORMERS:
        return open_transformer(part, config, weights, f"the stored {part.name}")
    made = _empty(part, config, "the store", meta=False)
    made.load_state_dict(fitting(made, weights, f"the stored {part.name}"))
    return made.eval().requires_grad_(False)


def _absent(part: Part, parts: PartsRead) -> bool:
    return not (json_part(parts, part.name) if part.is_text else tensors(parts, part.name))


def load_tokenizer(part: Part, parts: PartsRead) -> Any:
    """The tokenizer of stored files, by transformers itself; DataError where it cannot be opened."""
    import transformers

    with tempfile.TemporaryDirectory() as folder:
        write_text(Path(folder), json_part(parts, part.name))
        try:
            return getattr(transformers, part.classes[0]).from_pretrained(folder, local_files_only=True)
        except Exception as err:  # noqa: BLE001 - its readers end in many kinds of error
            why = " ".join(str(err).split())[:300] or type(err).__name__
            raise DataError(f"the {part.name} cannot be opened", why=why) from None


def write_part(folder: Path, part: Part, parts: PartsRead) -> list[str] | None:
    """Write a component below `folder` as `save_pretrained` does; its entry in the index, None if absent."""
    if _absent(part, parts):
        return None
    own = folder / part.name
    own.mkdir(parents=True, exist_ok=True)
    if part.is_text:
        write_text(own, json_part(parts, part.name))
    else:
        write_network(own, part, tensors(parts, part.name), json_part(parts, f"{part.name}_config"))
        return [part.library, _class_of(part, json_part(parts, f"{part.name}_config"))]
    return [part.library, part.classes[0]]


def write_network(folder: Path, part: Part, weights: Weights, config: Mapping[str, Any]) -> None:
    """Write weights and configuration of a network into `folder`, as its class opens them."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    named = dict(config)
    if part.library == DIFFUSERS:
        named["_class_name"] = _class_of(part, config)
    else:
        named["architectures"] = [_class_of(part, config)]
    text = json.dumps(named, indent=2, sort_keys=True) + "\n"
    (folder / "config.json").write_text(text, encoding="utf-8")
    file = folder / f"{_STEMS[part.library]}.safetensors"
    save_file(dict(weights), file, {"format": "pt"})  # which their loaders ask for


def write_text(folder: Path, files: Mapping[str, str]) -> None:
    """Write a tokenizer's files; names never lead out of the folder."""
    for name, text in files.items():
        (folder / Path(name).name).write_text(text, encoding="utf-8")


def _text_files(folder: Path) -> dict[str, str]:
    names = sorted(path for path in folder.iterdir() if path.suffix in _TOKENIZER_FILES)
    binary = [path.name for path in names if path.suffix == ".model"]
    files = {path.name: read_text(path) for path in names if path.suffix != ".model"}
    for name in ("tokenizer_config.json", "config.json"):
        if name in files:
            read_config(folder / name)  # refuses one that asks for code of its own
    if not files or (binary and "tokenizer.json" not in files):
        raise DataError(
            f"{folder}: the tokenizer has no tokenizer.json",
            why="a sentencepiece model alone (*.model) is not read",
            fix="open it with transformers, which converts it, and save it again with save_pretrained",
        )
    return files


def _class_of(part: Part, config: Mapping[str, Any]) -> str:
    """Which of the part's classes a configuration is of: what it says, or the first."""
    said = config.get("_class_name") or next(iter(config.get("architectures") or ()), None)
    return str(said) if said in part.classes else part.classes[0]


def _empty(part: Part, config: Mapping[str, Any], where: str, *, meta: bool = True) -> torch.nn.Module:
    """A network of the part's class and `config`, on the meta device where it is not to be filled."""
    import torch

    made_of = getattr(import_module(part.library), _class_of(part, config))
    place = torch.device("meta") if meta else contextlib.nullcontext()
    try:
        with quiet_libraries(), place:
            network = made_of.from_config(dict(config))
    except Exception as err:  # noqa: BLE001 - both libraries' validators have errors of their own
        why = " ".join(str(err).split())[:300] or type(err).__name__
        raise DataError(f"{where}: no {part.classes[0]} can be built", why=why) from None
    found: torch.nn.Module = network
    return found
