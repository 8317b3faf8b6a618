"""Tiny pipelines with random weights, of the true classes, as their own `save_pretrained` writes them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.latent.conftest import END, POSITIONS, START, save_tokenizer, vocabulary


def clip_config(width: int, projection: int) -> Any:
    from transformers import CLIPTextConfig

    words = vocabulary()
    return CLIPTextConfig(
        vocab_size=len(words), hidden_size=width, intermediate_size=24, num_hidden_layers=3,
        num_attention_heads=2, max_position_embeddings=POSITIONS, projection_dim=projection,
        bos_token_id=words[START], eos_token_id=words[END], pad_token_id=words[END],
    )  # fmt: skip


def vae(channels: int = 4, **more: Any) -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(8, 16), layers_per_block=1, latent_channels=channels, norm_num_groups=4,
        sample_size=16, down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2, **more,
    )  # fmt: skip


def clip_tokenizer(folder: Path) -> Any:
    from transformers import CLIPTokenizer

    if not folder.exists():
        save_tokenizer(folder)
    return CLIPTokenizer.from_pretrained(folder)


def sdxl(folder: Path, **vae_settings: Any) -> Any:
    from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    unet = UNet2DConditionModel(
        sample_size=8, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4,
        cross_attention_dim=16 + 24, attention_head_dim=(2, 4), use_linear_projection=True,
        transformer_layers_per_block=(1, 2), addition_embed_type="text_time", addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + 20,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    scheduler = EulerDiscreteScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, steps_offset=1,
        timestep_spacing="leading",
    )  # fmt: skip
    return StableDiffusionXLPipeline(
        unet=unet, vae=vae(scaling_factor=0.13025, **vae_settings), scheduler=scheduler,
        text_encoder=CLIPTextModel(clip_config(16, 16)),
        text_encoder_2=CLIPTextModelWithProjection(clip_config(24, 20)),
        tokenizer=clip_tokenizer(folder / "words"), tokenizer_2=clip_tokenizer(folder / "words"),
        add_watermarker=False,
    )  # fmt: skip


MADE: dict[str, Callable[..., Any]] = {"sdxl": sdxl}
"""How each family's pipeline is made, by the family's name; the folder is for its tokenizer's files."""


def save(name: str, folder: Path, seed: int = 0, **settings: Any) -> Path:
    """A pipeline of the family `name` in the new folder `folder`/pipeline."""
    import torch

    torch.manual_seed(seed)
    folder.mkdir(parents=True, exist_ok=True)
    MADE[name](folder, **settings).save_pretrained(folder / "pipeline", safe_serialization=True)
    return folder / "pipeline"
