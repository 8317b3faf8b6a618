"""Checkpoints in one file: the same model as the folder's; other files are refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from guda_cli.checkpoints.model_source import register_source
from guda_cli.checkpoints.pipeline_folder import Pipeline, read_pipeline
from guda_cli.checkpoints.single_file import open_clip_names, read_single_file
from guda_cli.diffusion import networks
from guda_cli.errors import DataError, GudaError, MissingError
from tests.latent import compvis
from tests.latent.compvis import checkpoint

Change = Callable[..., None]


@pytest.fixture(scope="module")
def pipeline(saved: Path) -> Pipeline:
    return read_pipeline(str(saved))


@pytest.fixture
def base(folder: Path) -> Path:
    """The pipeline's configuration without any weights."""
    for path in folder.rglob("*.safetensors"):
        path.unlink()
    return folder


def refused(path: Path, base: Path | None, kind: type[GudaError] = DataError) -> str:
    with pytest.raises(kind) as caught:
        register_source(str(path), str(base) if base else None)
    return f"{caught.value.message} | {caught.value.why} | {caught.value.fix}"


@pytest.mark.parametrize("openclip", [False, True], ids=["clip", "openclip"])
def test_the_same_model_as_the_folders(
    openclip: bool, pipeline: Pipeline, base: Path, tmp_path: Path
) -> None:
    path = tmp_path / "model.safetensors"
    save_file(checkpoint(pipeline, openclip), path)
    made = read_single_file(path, str(base))
    assert made.unet == pipeline.unet
    assert made.components.to_blobs() == pipeline.components.to_blobs()
    assert (made.unet_config, made.scheduler_config) == (pipeline.unet_config, pipeline.scheduler_config)
    assert f"(prediction_type epsilon) and tokenizer are those of {base}" in " ".join(made.notes)
    assert register_source(str(path), str(base)).unet == pipeline.unet


def test_half_precision_is_stored_as_float32(pipeline: Pipeline, base: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({k: v.half() for k, v in checkpoint(pipeline).items()}, path)
    made = networks.from_bytes(read_single_file(path, str(base)).unet)
    wanted = {name: value.half().float() for name, value in networks.from_bytes(pipeline.unet).items()}
    assert all(torch.equal(made[name], wanted[name]) for name in wanted)


def test_openclip_by_diffusers_own_conversion(pipeline: Pipeline) -> None:
    from diffusers.loaders.single_file_utils import convert_open_clip_checkpoint
    from transformers import CLIPTextConfig, CLIPTextModel

    prefix = "cond_stage_model.model."
    tensors = compvis.open_clip(networks.from_bytes(pipeline.components.text_encoder), layers=2)
    model = CLIPTextModel(CLIPTextConfig.from_dict(dict(pipeline.components.text_config)))
    theirs = convert_open_clip_checkpoint(model, tensors, prefix=prefix)
    ours = open_clip_names({name.removeprefix(prefix): v for name, v in tensors.items()}, layers=2)
    for name, value in ours.items():
        assert torch.equal(theirs[f"text_model.{name}"], value)
    assert ours.keys() == model.state_dict().keys()


@pytest.mark.parametrize("suffix", [".ckpt", ".pt", ".bin", ".safetensors"])
def test_a_pickle_under_any_name(suffix: str, pipeline: Pipeline, base: Path, tmp_path: Path) -> None:
    path = tmp_path / f"model{suffix}"
    for zipped in (True, False):
        torch.save({"state_dict": checkpoint(pipeline)}, path, _use_new_zipfile_serialization=zipped)
        said = refused(path, base)
        assert "is a pickle" in said
        assert "can run any code" in said


def test_without_base_and_hub(pipeline: Pipeline, tmp_path: Path) -> None:
    """The tests' environment is offline."""
    path = tmp_path / "model.safetensors"
    save_file(checkpoint(pipeline), path)
    assert "--base PIPELINE" in refused(path, None, MissingError)


def test_without_base_by_the_hubs_configuration(
    pipeline: Pipeline, base: Path, tmp_path: Path, cached: Callable[[Path, str], None]
) -> None:
    """Of Stable Diffusion 1.5, which is what diffusers takes a file of this form for."""
    path = tmp_path / "model.safetensors"
    save_file(checkpoint(pipeline), path)
    cached(base, "stable-diffusion-v1-5/stable-diffusion-v1-5")
    made = read_single_file(path, None)
    assert made.unet == pipeline.unet
    assert "those of stable-diffusion-v1-5/stable-diffusion-v1-5" in made.notes[-1]


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("conditioner.embedders.0.transformer.text_model.x", "Stable Diffusion XL"),
        ("model.diffusion_model.joint_blocks.0.x", "Stable Diffusion 3"),
        ("model.diffusion_model.double_blocks.0.x", "Flux"),
        ("something.else", "neither a checkpoint in one file nor a LoRA"),
    ],
)
def test_other_models(name: str, model: str, base: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({name: torch.zeros(1)}, path)
    assert model in refused(path, base)


@pytest.mark.parametrize(
    ("start", "part"),
    [
        ("model.diffusion_model.", "neither"),
        ("first_stage_model.", "no vae"),
        ("cond_stage_model.", "no text_encoder"),
    ],
)
def test_a_file_that_lacks_a_part(
    start: str, part: str, pipeline: Pipeline, base: Path, tmp_path: Path
) -> None:
    path = tmp_path / "model.safetensors"
    save_file({k: v for k, v in checkpoint(pipeline).items() if not k.startswith(start)}, path)
    assert part in refused(path, base)


@pytest.mark.parametrize(
    ("place", "entries"),
    [
        ("unet/config.json", {"block_out_channels": [8, 24]}),
        ("unet/config.json", {"layers_per_block": 2}),
        ("unet/config.json", {"down_block_types": ["DownBlock2D"] * 2, "up_block_types": ["UpBlock2D"] * 2}),
        ("vae/config.json", {"block_out_channels": [8, 24]}),
        ("text_encoder/config.json", {"num_hidden_layers": 1}),
        ("text_encoder/config.json", {"num_hidden_layers": 3}),
    ],
)
def test_a_base_of_another_model(
    place: str, entries: dict[str, object], pipeline: Pipeline, base: Path, tmp_path: Path, change: Change
) -> None:
    path = tmp_path / "model.safetensors"
    save_file(checkpoint(pipeline), path)
    change(base / place, **entries)
    assert "not fit" in refused(path, base)


def test_lost_damaged_and_infinite_tensors(pipeline: Pipeline, base: Path, tmp_path: Path) -> None:
    tensors = checkpoint(pipeline)
    name = "model.diffusion_model.input_blocks.1.0.in_layers.2.weight"
    path = tmp_path / "lost.safetensors"
    save_file({k: v for k, v in tensors.items() if k != name}, path)
    assert "does not fit" in refused(path, base)
    path = tmp_path / "nan.safetensors"
    save_file({**tensors, name: torch.full_like(tensors[name], float("nan"))}, path)
    assert f"'{name}'" in refused(path, base)
    (tmp_path / "cut.safetensors").write_bytes(path.read_bytes()[:-4])
    assert "not a readable safetensors" in refused(tmp_path / "cut.safetensors", base)
    shutil.rmtree(base / "tokenizer")
    assert "no tokenizer/" in refused(tmp_path / "nan.safetensors", base)
