"""Whatever a user has of a Stable Diffusion model, told apart by what lies there and read as a `Pipeline`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from guda_cli.checkpoints import supported
from guda_cli.checkpoints.adapter_folder import adapters_in, told_of_adapter_beside, told_of_other_part
from guda_cli.checkpoints.files import PICKLES, download, is_hub_id
from guda_cli.checkpoints.lora_file import apply_lora, check_adapter, is_lora
from guda_cli.checkpoints.one_file_kinds import is_single_file, part_alone
from guda_cli.checkpoints.pipeline_folder import (
    Pipeline,
    locate,
    read_components,
    read_configuration,
    read_pipeline,
    read_unet_config,
    read_unet_folder,
)
from guda_cli.checkpoints.single_file import read_single_file
from guda_cli.checkpoints.weights import tensor_names
from guda_cli.errors import DataError, UsageError


def register_source(source: str, base: str | None) -> Pipeline:
    """The model at `source`: a folder, a `.safetensors` file, or a hub id OWNER/MODEL.

    A pipeline folder; a `UNet2DConditionModel` folder or a LoRA (file, folder, or peft's folder a part), each
    put over the pipeline `base`, which may be a checkpoint in one file; a checkpoint in one file, with `base`
    for its configuration. Safetensors only. UsageError where a `base` is needed and missing, DataError for
    what cannot be used, MissingError when a hub does not answer.
    """
    path = Path(source).expanduser()
    if path.is_file():
        return _from_file(path, base)
    if not path.is_dir() and (path.suffix.lower() in (*PICKLES, ".safetensors") or not is_hub_id(source)):
        raise DataError(
            f"no such file or folder: {source}", fix="give a folder, a .safetensors file or OWNER/MODEL"
        )
    path = locate(source)
    if (path / "model_index.json").is_file():
        return _noted(read_pipeline(str(path)), told_of_adapter_beside(path))
    adapters = adapters_in(path)
    if adapters:
        return _with_adapters(adapters, base)
    if (path / "config.json").is_file():
        return _over(path, _needed(base, "a unet without its pipeline"))
    files = sorted(path.glob("*.safetensors"))
    if not files and not Path(source).expanduser().exists():  # a hub's model: it may be a file, not fetched
        path = download(source, ("*.safetensors",), "download the file and give its path", ("*/*",))
        files = sorted(path.glob("*.safetensors"))
    if len(files) == 1:
        return _from_file(files[0], base)
    if files:
        raise DataError(
            f"{source} is no pipeline and has {len(files)} files that might be the model",
            why=", ".join(file.name for file in files[:4]),
            fix="give the one that is meant: --from FILE.safetensors",
        )
    return read_pipeline(str(path))  # says what is missing


def begins_at(source: str, base: str) -> bool:
    """Whether the `base` of `source` is more than its configuration: a model that a training can start from.

    Over a base the source lies as a UNet or as a LoRA; a checkpoint in one file reads no weights of it, so
    there it may be without. What a hub has is not fetched to find out.
    """
    path = Path(source).expanduser()
    if not path.is_file() or is_lora(tensor_names(path)):
        return True
    below = Path(base).expanduser()
    return below.is_file() or any((below / "unet").glob("*.safetensors"))


def _from_file(path: Path, base: str | None) -> Pipeline:
    names = tensor_names(path)
    if is_lora(names):
        return _with_adapters([("unet", path)], base)
    if is_single_file(names):
        return read_single_file(path, base)
    check_adapter(path)
    shown, alone = ", ".join(names[:3]), part_alone(names)
    raise DataError(
        f"{path} is neither a checkpoint in one file nor a LoRA" + (f", but {alone}" if alone else ""),
        why=f"its tensors are {shown}, ..." if names else "it has no tensors",
        fix="give the folder that it belongs to",
    )


def _with_adapters(adapters: list[tuple[str, Path]], base: str | None) -> Pipeline:
    """The pipeline `base` with all `adapters`, whose kinds are told before anything is read or wanted."""
    for _, file in adapters:
        check_adapter(file)
    made = _pipeline(_needed(base, "a LoRA"))
    for part, file in adapters:
        made = apply_lora(made, file, part)
    return _noted(made, told_of_other_part(adapters))


def _noted(pipeline: Pipeline, note: str) -> Pipeline:
    return replace(pipeline, notes=(*pipeline.notes, note)) if note else pipeline


def _pipeline(base: str) -> Pipeline:
    """What lies below a LoRA: a pipeline, or a checkpoint in one file with the hub's configuration."""
    path = Path(base).expanduser()
    return _from_file(path, None) if path.is_file() else read_pipeline(base)


def _over(folder: Path, base: str) -> Pipeline:
    """The unet in `folder` with everything else of the pipeline `base`, whose own unet is not read."""
    if Path(base).expanduser().is_file():
        whole, config = _pipeline(base), read_unet_config(folder)
        parts = whole.components
        supported.check_together(config, parts.vae_config, parts.text_config, f"{folder} over {base}")
        return replace(whole, unet=read_unet_folder(folder)[0], unet_config=config)
    below = locate(base)
    configuration = read_configuration(below)
    config = read_unet_config(folder)
    supported.check_together(config, configuration.vae, configuration.text, f"{folder} over {base}")
    unet, _ = read_unet_folder(folder)
    components, notes = read_components(below, configuration)
    return Pipeline(unet, config, configuration.scheduler, components, (*configuration.notes, *notes))


def _needed(base: str | None, what: str) -> str:
    if base is None:
        raise UsageError(
            f"{what} needs the pipeline that it belongs to",
            fix="--base PIPELINE",
        )
    return base
