"""A written folder is one that diffusers opens, and that is read as what was written."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from guda_cli.checkpoints.pipeline_folder import Pipeline, read_pipeline
from guda_cli.checkpoints.write_pipeline import write_pipeline
from guda_cli.errors import DataError


def opened(folder: Path) -> Any:
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline

    pipe = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None, use_safetensors=True)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def drawn(pipe: Any) -> torch.Tensor:
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        images = pipe("a cat, a dog", latents=noise, num_inference_steps=2, output_type="pt").images
    assert isinstance(images, torch.Tensor)
    return images


@pytest.fixture(scope="module")
def pipeline(saved: Path) -> Pipeline:
    return read_pipeline(str(saved))


def test_diffusers_draws_the_same_image(
    pipeline: Pipeline, saved: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_pipeline(tmp_path / "out", pipeline)
    wanted = drawn(opened(saved))
    caplog.clear()
    pipe = opened(tmp_path / "out")
    assert not [r.getMessage() for r in caplog.records if r.levelname in ("WARNING", "ERROR")]
    assert torch.equal(drawn(pipe), wanted)
    assert type(pipe.scheduler).__name__ == "PNDMScheduler"
    assert pipe.safety_checker is None
    assert pipe.feature_extractor is None
    assert {p.dtype for p in pipe.text_encoder.parameters()} == {torch.float32}


def test_read_again_it_is_the_same(pipeline: Pipeline, tmp_path: Path) -> None:
    write_pipeline(tmp_path / "out", pipeline)
    again = read_pipeline(str(tmp_path / "out"))
    assert (again.unet, again.unet_config) == (pipeline.unet, pipeline.unet_config)
    assert again.scheduler_config == pipeline.scheduler_config
    assert again.components.to_blobs() == pipeline.components.to_blobs()


def test_a_recipes_schedule_becomes_a_ddim_scheduler(pipeline: Pipeline, tmp_path: Path) -> None:
    schedule = {"beta_schedule": "linear", "num_train_timesteps": 40, "prediction_type": "v_prediction"}
    write_pipeline(tmp_path / "out", dataclasses.replace(pipeline, scheduler_config=schedule))
    scheduler = opened(tmp_path / "out").scheduler
    assert type(scheduler).__name__ == "DDIMScheduler"
    assert {k: scheduler.config[k] for k in schedule} == schedule
    assert (scheduler.config.steps_offset, scheduler.config.clip_sample) == (1, False)


def test_text_weights_have_the_names_that_other_tools_know(pipeline: Pipeline, tmp_path: Path) -> None:
    from safetensors import safe_open

    write_pipeline(tmp_path / "out", pipeline)
    with safe_open(tmp_path / "out" / "text_encoder" / "model.safetensors", framework="pt") as file:
        assert "text_model.embeddings.token_embedding.weight" in list(file.keys())
        assert file.metadata() == {"format": "pt"}
    index = json.loads((tmp_path / "out" / "model_index.json").read_text())
    assert index["requires_safety_checker"] is False


def test_a_folder_that_is_not_empty(pipeline: Pipeline, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(DataError, match="not empty"):
        write_pipeline(tmp_path, pipeline)
    with pytest.raises(DataError, match="mine"):
        write_pipeline(tmp_path / "mine.txt" / "out", pipeline)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
