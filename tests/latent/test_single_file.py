"""Checkpoints in one file: the same model as the folder's; other files are refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

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
    made = networks.from_bytes(bytes(read_single_file(path, str(base)).unet))
    wanted = {name: value.half().float() for name, value in networks.from_bytes(bytes(pipeline.unet)).items()}
    assert all(torch.equal(made[name], wanted[name]) for name in wanted)


def test_numbers_of_8_bits_are_no_weights(pipeline: Pipeline, base: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    small = {
        name: value.to(torch.float8_e4m3fn) if name.startswith("model.diffusion_model.") else value
        for name, value in checkpoint(pipeline).items()
    }
    save_file(small, path)
    said = refused(path, base)
    assert "the weights are quantised" in said
    assert "float8_e4m3fn" in said


def test_openclip_by_diffusers_own_conversion(pipeline: Pipeline) -> None:
    from diffusers.loaders.single_file_utils import convert_open_clip_checkpoint
    from transformers import CLIPTextConfig, CLIPTextModel

    prefix = "cond_stage_model.model."
    tensors = compvis.open_clip(networks.from_bytes(bytes(pipeline.components.text_encoder)), layers=2)
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
        ("conditioner.embedders.0.model.transformer.x", "Stable Diffusion XL refiner"),
        ("joint_blocks.0.x_block.x", "Stable Diffusion 3"),
        ("double_blocks.0.img_attn.x", "Flux model"),
        ("model.diffusion_model.single_stream_modulation.lin.weight", "Flux 2"),
        ("input_blocks.0.0.weight", "a UNet alone"),
        ("first_stage_model.encoder.conv_in.weight", "a VAE alone"),
        ("model_ema.diffusion_modelinput_blocks00weight", "moving average"),
        ("control_model.input_blocks.0.0.weight", "a ControlNet"),
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
    with pytest.raises(DataError, match="the unet has NaN") as caught:  # looked at as it is stored
        bytes(read_single_file(path, str(base)).unet)
    assert "'down_blocks.0.resnets.0.conv1.weight'" in caught.value.why
    (tmp_path / "cut.safetensors").write_bytes(path.read_bytes()[:-4])
    assert "not a readable safetensors" in refused(tmp_path / "cut.safetensors", base)
    shutil.rmtree(base / "tokenizer")
    assert "no tokenizer/" in refused(tmp_path / "nan.safetensors", base)


NAMES = {
    "to_q": {"q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"},
    "query": {"q": "query", "k": "key", "v": "value", "proj_out": "proj_attn"},
    "group_norm": {"q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0", "norm": "group_norm"},
}


@pytest.mark.parametrize("linear", [False, True])
@pytest.mark.parametrize("names", NAMES)
def test_a_vae_whose_attention_was_converted(
    names: str, linear: bool, pipeline: Pipeline, base: Path, tmp_path: Path
) -> None:
    """By scripts that gave it diffusers' names, of 2022 or of 2023, and made matrices of convolutions."""
    named, seen = {}, 0
    for name, value in checkpoint(pipeline).items():
        if ".mid.attn_1." in name:
            seen += 1
            place, _, part = name.partition(".mid.attn_1.")
            module, _, kind = part.rpartition(".")
            name = f"{place}.mid.attn_1.{NAMES[names].get(module, module)}.{kind}"
            value = value.flatten(1).contiguous() if linear and value.ndim == 4 else value
        named[name] = value
    assert seen == 20
    path = tmp_path / "model.safetensors"
    save_file(named, path)
    made = read_single_file(path, str(base))
    assert made.components.to_blobs() == pipeline.components.to_blobs()


@pytest.mark.parametrize(
    "beside",
    [
        {"cond_stage_model.transformer.text_projection.weight": torch.eye(16)},
        {"cond_stage_model.transformer.text_projection": torch.eye(16)},
        {"cond_stage_model.transformer.logit_scale": torch.ones(())},
        {"cond_stage_model.logit_scale": torch.ones(())},
        {"cond_stage_model.transformer.vision_model.post_layernorm.weight": torch.ones(4)},
    ],
    ids=lambda beside: next(iter(beside)),
)
def test_the_rest_of_clip_is_passed_over(
    beside: dict[str, torch.Tensor], pipeline: Pipeline, base: Path, tmp_path: Path
) -> None:
    path = tmp_path / "model.safetensors"
    save_file({**checkpoint(pipeline), **beside}, path)
    made = read_single_file(path, str(base))
    assert made.components.to_blobs() == pipeline.components.to_blobs()


def test_a_text_encoder_without_its_prefix(pipeline: Pipeline, base: Path, tmp_path: Path) -> None:
    clip = "cond_stage_model.transformer."
    named = {k.replace(f"{clip}text_model.", clip): v for k, v in checkpoint(pipeline).items()}
    path = tmp_path / "model.safetensors"
    save_file(named, path)
    assert read_single_file(path, str(base)).components.to_blobs() == pipeline.components.to_blobs()


def test_a_moving_average_beside_the_trained_network_is_said(
    pipeline: Pipeline, base: Path, tmp_path: Path
) -> None:
    averaged = {"model_ema.diffusion_modelinput_blocks00weight": torch.zeros(8, 4, 3, 3)}
    path = tmp_path / "model.safetensors"
    save_file({**checkpoint(pipeline), **averaged}, path)
    made = read_single_file(path, str(base))
    assert made.unet == pipeline.unet
    assert "not its moving average" in " ".join(made.notes)


@pytest.mark.parametrize(("channels", "said"), [(9, "inpainting"), (8, "InstructPix2Pix"), (5, "depth")])
def test_networks_that_read_more_are_refused_before_a_base_is_looked_for(
    channels: int, said: str, pipeline: Pipeline, tmp_path: Path
) -> None:
    path = tmp_path / "model.safetensors"
    first = {"model.diffusion_model.input_blocks.0.0.weight": torch.zeros(8, channels, 3, 3)}
    save_file({**checkpoint(pipeline), **first}, path)
    found = refused(path, None)
    assert f"{channels} input and 4 output" in found
    assert said in found


@pytest.mark.parametrize(
    ("name", "said"),
    [("label_emb.0.0.weight", "unCLIP, upscalers"), ("time_embed.cond_proj.weight", "time_cond_proj_dim")],
)
def test_networks_with_more_conditions(name: str, said: str, pipeline: Pipeline, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({**checkpoint(pipeline), f"model.diffusion_model.{name}": torch.zeros(8, 4)}, path)
    assert said in refused(path, None)


class TestNoise:
    """What a file says of its own noise counts against the base's schedule."""

    def levels(self, base: Path) -> torch.Tensor:
        from guda_cli.checkpoints.pipeline_folder import read_configuration
        from guda_cli.diffusion.schedule import from_config

        return torch.tensor(from_config(read_configuration(base).scheduler).abar[1:])

    def test_its_own_levels(self, pipeline: Pipeline, base: Path, tmp_path: Path) -> None:
        path, own = tmp_path / "model.safetensors", self.levels(base)
        save_file({**checkpoint(pipeline), "alphas_cumprod": own.half()}, path)
        assert read_single_file(path, str(base)).unet == pipeline.unet
        for other in (own[:-1], own * torch.linspace(1, 0, len(own))):
            save_file({**checkpoint(pipeline), "alphas_cumprod": other.clone()}, path)
            assert "alphas_cumprod" in refused(path, base)

    @pytest.mark.parametrize(
        ("mark", "entries"),
        [
            ("v_pred", {"prediction_type": "v_prediction"}),
            ("ztsnr", {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}),
        ],
    )
    def test_marks_of_fine_tuned_models(
        self,
        mark: str,
        entries: dict[str, Any],
        pipeline: Pipeline,
        base: Path,
        tmp_path: Path,
        change: Change,
    ) -> None:
        path = tmp_path / "model.safetensors"
        save_file({**checkpoint(pipeline), mark: torch.zeros(0)}, path)
        said = refused(path, base)
        assert f"its tensor '{mark}'" in said
        change(base / "scheduler" / "scheduler_config.json", **entries)
        made = read_single_file(path, str(base))
        assert entries.items() <= made.scheduler_config.items()
