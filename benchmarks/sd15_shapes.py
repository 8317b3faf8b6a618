"""Do the true shapes fit? Stable Diffusion 1.5's configuration with random weights through unlearn and score.

    python benchmarks/sd15_shapes.py [--work DIR] [--size 512]

Builds a pipeline folder of 860 million parameters (4.3 GB on disk, and as much again in the store), takes it
over with `guda train --from --as-is`, unlearns two groups for two steps with --params lora:4, scores an image
at four timesteps. Prints seconds, peak memory and what an unlearned group takes on disk.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

STYLES = {
    "van-gogh": ("thick strokes", "swirls", "vivid yellow"),
    "monet": ("soft light", "pale blue", "loose dabs"),
    "hokusai": ("flat colour", "fine lines", "deep blue"),
}
UNET = {
    "sample_size": 64,
    "layers_per_block": 2,
    "block_out_channels": (320, 640, 1280, 1280),
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
}
VAE = {
    "sample_size": 512,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "latent_channels": 4,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
}
TEXT = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}


class Shapes(NamedTuple):
    """Configurations of a pipeline's networks."""

    unet: Mapping[str, Any]
    vae: Mapping[str, Any]
    text: Mapping[str, Any]


SD15 = Shapes(UNET, VAE, TEXT)
TINY = Shapes(
    {**UNET, "sample_size": 8, "block_out_channels": (32, 32, 64, 64), "layers_per_block": 1,
     "cross_attention_dim": 32, "attention_head_dim": 4},
    {**VAE, "sample_size": 64, "block_out_channels": (32, 32, 32, 32), "layers_per_block": 1},
    {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2},
)  # fmt: skip
"""The same blocks, thin: for trying the code."""
HALF = TINY._replace(unet={**TINY.unet, "block_out_channels": (160, 320, 640, 640), "layers_per_block": 2})
"""A network of half the width between a thin VAE and a thin text encoder: memory is that of one network."""
SCHEDULER = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "steps_offset": 1}


def build(folder: Path, shapes: Shapes = SD15) -> None:
    """The pipeline folder; its tokenizer knows the letters and the prompts' words."""
    import torch
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler
    from transformers import CLIPTextConfig, CLIPTextModel

    from guda_cli.latent.tokenizer import load_tokenizer, train_tokenizer

    torch.manual_seed(0)
    tokenizer = load_tokenizer(train_tokenizer([prompt(name) for name in STYLES], 600))
    marks = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    text = CLIPTextConfig(
        vocab_size=49408 if shapes == SD15 else len(tokenizer),
        max_position_embeddings=77, projection_dim=shapes.text["hidden_size"], **shapes.text, **marks,
    )  # fmt: skip
    StableDiffusionPipeline(
        unet=UNet2DConditionModel(**shapes.unet),
        vae=AutoencoderKL(**shapes.vae),
        text_encoder=CLIPTextModel(text),
        tokenizer=tokenizer,
        scheduler=DDIMScheduler(clip_sample=False, set_alpha_to_one=False, **SCHEDULER),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder, safe_serialization=True)


def prompt(style: str) -> str:
    return f"a wheat field, artistic style featuring {', '.join(STYLES[style])}"


def paint(folder: Path, size: int) -> None:
    """Two pictures a style, random blocks of colour, with their prompts."""
    import numpy as np
    from PIL import Image

    rng, rows = np.random.default_rng(0), []
    for style in STYLES:
        for i in range(2):
            path = folder / style / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            blocks = Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8))
            blocks.resize((size, size)).save(path)
            rows.append({"file_name": f"{style}/{i}.png", "prompt": prompt(style)})
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))


def guda(work: Path, *args: str) -> dict[str, Any]:
    """Run a command; its last document, seconds and peak memory."""
    start = time.monotonic()
    done = subprocess.Popen(
        [sys.executable, "-m", "guda_cli", *args, "--json"], cwd=work, stdout=subprocess.PIPE, text=True
    )
    assert done.stdout is not None
    lines = [line for line in done.stdout if line.startswith("{")]
    _, status, usage = os.wait4(done.pid, 0)
    if status:
        raise SystemExit(f"guda {' '.join(args)}: status {status}")
    peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 2**30
    print(f"guda {' '.join(args)}: {time.monotonic() - start:.0f} s, peak {peak:.1f} GB", flush=True)
    return json.loads(lines[-1])


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--work", type=Path, default=Path("sd15-shapes"))
    parser.add_argument("--size", type=int, default=512, help="pixels a side")
    given = parser.parse_args()
    os.environ["GUDA_STORE"] = ".guda"  # of the work folder, not one of a folder above it
    work = given.work.absolute()
    work.mkdir(parents=True, exist_ok=True)
    if not (work / "pipeline" / "model_index.json").exists():
        build(work / "pipeline")
    paint(work / "paintings", given.size)
    sets = ("unlearn.params=lora:4", "unlearn.steps=2", "unlearn.batch_size=1", "unlearn.null_groups=0")
    options = [
        part for item in (f"data.size={given.size}", "score.draws=1", *sets) for part in ("--set", item)
    ]
    guda(work, "train", "paintings", "--from", "pipeline", "--as-is", *options)
    made = guda(work, "unlearn", "--group", "van-gogh", "--group", "monet")
    guda(work, "score", "paintings/van-gogh/0.png", "--timesteps", "4", "--top", "2")
    store = work / ".guda" / "blobs" / "sha256"
    sizes = [next(store.rglob(model["weights"])).stat().st_size for model in made["models"]]
    full = (work / "pipeline" / "unet" / "diffusion_pytorch_model.safetensors").stat().st_size
    print(f"an unlearned group takes {max(sizes) / full:.2%} of the network's {full / 2**30:.1f} GB")


if __name__ == "__main__":
    main()
