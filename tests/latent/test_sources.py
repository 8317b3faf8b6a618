"""What a user may name as a model: files below files, hub ids of a LoRA or of one file, configurations."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from guda_cli.checkpoints.model_source import begins_at, register_source
from guda_cli.checkpoints.pipeline_folder import Pipeline, read_pipeline
from guda_cli.diffusion import networks
from guda_cli.errors import DataError
from tests.latent.compvis import checkpoint

HUB = "stable-diffusion-v1-5/stable-diffusion-v1-5"  # whose configuration such a file has
MODULE = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_q"


@pytest.fixture(scope="module")
def pipeline(saved: Path) -> Pipeline:
    return read_pipeline(str(saved))


@pytest.fixture
def file(pipeline: Pipeline, tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    save_file(checkpoint(pipeline), path)
    return path


def lora(pipeline: Pipeline, path: Path) -> Path:
    outputs, inputs = networks.from_bytes(bytes(pipeline.unet))[f"{MODULE}.weight"].shape
    factors = {"A": torch.ones(1, inputs), "B": torch.ones(outputs, 1)}
    path.parent.mkdir(exist_ok=True)
    save_file({f"unet.{MODULE}.lora_{name}.weight": value for name, value in factors.items()}, path)
    return path


def moved(made: Pipeline, pipeline: Pipeline) -> set[str]:
    one, two = (networks.from_bytes(bytes(each.unet)) for each in (made, pipeline))
    return {name for name in one if not torch.equal(one[name], two[name])}


def test_a_lora_over_a_checkpoint_in_one_file(
    pipeline: Pipeline, folder: Path, file: Path, tmp_path: Path, cached: Callable[[Path, str], None]
) -> None:
    cached(folder, HUB)
    made = register_source(str(lora(pipeline, tmp_path / "style.safetensors")), str(file))
    assert moved(made, pipeline) == {f"{MODULE}.weight"}
    assert made.components.to_blobs() == pipeline.components.to_blobs()


def test_a_unet_over_a_checkpoint_in_one_file(
    pipeline: Pipeline, folder: Path, file: Path, cached: Callable[[Path, str], None]
) -> None:
    cached(folder, HUB)
    made = register_source(str(folder / "unet"), str(file))
    assert made.unet == pipeline.unet
    assert made.components.to_blobs() == pipeline.components.to_blobs()


@pytest.mark.parametrize("name", ["pytorch_lora_weights.safetensors", "adapter_model.safetensors"])
def test_a_hubs_lora(
    name: str, pipeline: Pipeline, saved: Path, tmp_path: Path, cached: Callable[[Path, str], None]
) -> None:
    cached(lora(pipeline, tmp_path / "adapter" / name).parent, "owner/style")
    assert moved(register_source("owner/style", str(saved)), pipeline) == {f"{MODULE}.weight"}


def test_a_hubs_checkpoint_in_one_file(
    pipeline: Pipeline, saved: Path, file: Path, tmp_path: Path, cached: Callable[[Path, str], None]
) -> None:
    (tmp_path / "repository").mkdir()
    shutil.copy(file, tmp_path / "repository" / "anything-v3.safetensors")
    cached(tmp_path / "repository", "owner/anything")
    assert register_source("owner/anything", str(saved)).unet == pipeline.unet


def test_of_several_files_none_is_guessed(file: Path, saved: Path) -> None:
    shutil.copy(file, file.with_name("other.safetensors"))
    with pytest.raises(DataError, match="2 files that might be the model"):
        register_source(str(file.parent), str(saved))


def test_where_a_training_can_begin(pipeline: Pipeline, folder: Path, saved: Path, file: Path) -> None:
    adapter = lora(pipeline, file.with_name("style.safetensors"))
    assert begins_at(str(file), str(saved))
    assert begins_at(str(adapter), str(file))
    for path in folder.rglob("*.safetensors"):
        path.unlink()
    assert not begins_at(str(file), str(folder))
    assert not begins_at(str(file), HUB)
    assert begins_at(str(saved / "unet"), HUB)
