"""A tiny Stable Diffusion pipeline with random weights: the true classes, files and configuration fields."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"  # read when the hub's package is first imported, here by a session fixture

LETTERS = "abcdefghijklmnopqrstuvwxyz,"
MERGES = ("c a", "ca t</w>", "d o", "do g</w>")
START, END = "<|startoftext|>", "<|endoftext|>"
POSITIONS = 77


def vocabulary() -> dict[str, int]:
    """Tokens of a byte-pair encoding: letters, letters that end a word, merged ones, then the special two."""
    merged = [merge.replace(" ", "") for merge in MERGES]
    tokens = [*LETTERS, *(letter + "</w>" for letter in LETTERS), *merged, START, END]
    return {token: i for i, token in enumerate(tokens)}


def save_tokenizer(folder: Path) -> None:
    """The files that diffusers' older pipelines have: vocab.json and merges.txt."""
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary()))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(MERGES) + "\n")
    config = {
        "tokenizer_class": "CLIPTokenizer", "model_max_length": POSITIONS, "bos_token": START,
        "eos_token": END, "pad_token": END, "unk_token": END,
    }  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def components(seed: int = 0, linear_projection: bool = False) -> dict[str, Any]:
    """Random networks of Stable Diffusion's classes and the scheduler, as keywords of its pipeline."""
    import torch
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from diffusers.schedulers.scheduling_pndm import PNDMScheduler
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(seed)
    words = vocabulary()
    text = CLIPTextConfig(
        vocab_size=len(words), hidden_size=16, intermediate_size=24, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=POSITIONS, projection_dim=16,
        bos_token_id=words[START], eos_token_id=words[END], pad_token_id=words[END],
    )  # fmt: skip
    unet = UNet2DConditionModel(
        sample_size=8, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4,
        cross_attention_dim=16, attention_head_dim=4, use_linear_projection=linear_projection,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )  # fmt: skip
    vae = AutoencoderKL(
        block_out_channels=(8, 16), layers_per_block=1, latent_channels=4, norm_num_groups=4,
        sample_size=16, down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
    )  # fmt: skip
    scheduler = PNDMScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, skip_prk_steps=True,
        steps_offset=1,
    )  # fmt: skip
    scheduler.register_to_config(clip_sample=False)
    return {"unet": unet, "vae": vae, "text_encoder": CLIPTextModel(text), "scheduler": scheduler}


def save(folder: Path, **kwargs: Any) -> None:
    """A pipeline of `components(**kwargs)` saved by diffusers itself."""
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
    from transformers import CLIPTokenizer

    parts = components(**kwargs)
    save_tokenizer(folder / "tokenizer")
    StableDiffusionPipeline(
        **parts,
        tokenizer=CLIPTokenizer.from_pretrained(folder / "tokenizer"),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder, safe_serialization=True)


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pipeline's folder, written once; not to be changed."""
    folder = tmp_path_factory.mktemp("pipeline") / "tiny"
    save(folder)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A copy of the pipeline's folder for one test."""
    return Path(shutil.copytree(saved, tmp_path / "tiny"))


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path, str], None]:
    """`cached(folder, "owner/model")` puts a copy where the hub's downloads of that name are kept."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))

    def run(folder: Path, name: str) -> None:
        kept, commit = tmp_path / "hub" / f"models--{name.replace('/', '--')}", "0" * 40
        shutil.copytree(folder, kept / "snapshots" / commit)
        (kept / "refs").mkdir()
        (kept / "refs" / "main").write_text(commit)

    return run


@pytest.fixture
def change() -> Callable[..., None]:
    """`change(path, key=value, ...)` sets entries of a JSON file; None removes one."""

    def run(path: Path, **entries: Any) -> None:
        content = {**json.loads(path.read_text()), **entries}
        path.write_text(json.dumps({k: v for k, v in content.items() if v is not None}))

    return run
