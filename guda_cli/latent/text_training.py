"""Contrastive training of a small CLIP text encoder against the recipe's images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from guda_cli.data.images import to_float
from guda_cli.data.styles import parse_prompt, render
from guda_cli.diffusion.networks import Weights
from guda_cli.diffusion.noise import seed_of
from guda_cli.errors import DataError
from guda_cli.latent.text_encoder import build_text_encoder, text_config
from guda_cli.latent.tokenizer import load_tokenizer, tokenize, train_tokenizer
from guda_cli.sections import TextSpec
from guda_cli.training import loop
from guda_cli.training.run_state import RunState
from guda_cli.training.stream import Stream

WARMUP = 50
START_SCALE, LARGEST_SCALE = 5.0, 100.0  # of the cosines, one over the temperature
WHOLE, STYLE = 0.5, 0.25  # shares of captions that are a whole prompt, or its style; the rest: one descriptor


def train_text_encoder(
    prompts: Sequence[str],
    images: Tensor,
    spec: TextSpec,
    *,
    resume: RunState | None = None,
    hooks: loop.Hooks,
    device: torch.device | str = "cpu",
) -> tuple[Weights, dict[str, Any], dict[str, str]]:
    """Weights and configuration of a `CLIPTextModel`, and its tokenizer's files.

    `prompts[i]` describes `images[i]`: latents float32 [N, c, h, w], or uint8 pixels. The text encoder and a
    small convolutional network that is thrown away are trained so that captions and images of one batch find
    each other (Radford et al. 2021, figure 3); equal captions count as found in any of their images (Yang et
    al. 2022, UniCL). A caption is a prompt with its style descriptors shuffled, only these, or one of them:
    single descriptors, too, get an embedding near those of styles that look alike. `spec.steps` 0 returns
    the random initialisation. The tokenizer is learnt from the prompts. DataError when prompts and images
    are not one to one; loop.Diverged.
    """
    if len(prompts) != len(images) or not len(images):
        raise DataError(f"{len(prompts)} prompts do not describe {len(images)} images one by one")
    files = train_tokenizer(prompts, spec.vocabulary)
    reader = load_tokenizer(files)
    config = text_config(spec, reader)
    pair = _Pair(build_text_encoder(config, spec.seed), int(images.shape[1]), spec).to(device).train()
    stream = Stream(len(images), spec.batch_size, 1, (), spec.seed)

    def loss_at(step: int) -> Tensor:
        rows = stream.at(step).indices
        captions = captions_at([prompts[i] for i in rows.tolist()], spec, step)
        ids = _shortened(tokenize(reader, captions), int(config["eos_token_id"]))
        return pair.loss(ids.to(device), _as_input(images[rows]).to(device), _same(captions).to(device))

    settings = loop.LoopSpec(
        spec.steps, spec.lr, spec.seed, warmup=min(WARMUP, spec.steps), decay_lr=True, rate_setting="text.lr"
    )
    trained = loop.run(pair, loss_at, settings, resume=resume, hooks=hooks)
    weights = {name[5:]: value for name, value in trained.items() if name.startswith("text.")}
    return weights, config, files


def captions_at(prompts: Sequence[str], spec: TextSpec, step: int) -> list[str]:
    """The caption of each of a batch's `prompts` at `step`; prompts without a style part stay as they are."""
    rng = np.random.Generator(np.random.PCG64(seed_of("guda.captions/1", spec.seed, step)))
    return [_caption(prompt, spec, rng) for prompt in prompts]


def _caption(prompt: str, spec: TextSpec, rng: np.random.Generator) -> str:
    parsed = parse_prompt(prompt, spec)
    if parsed is None or not parsed.descriptors:
        return prompt
    kind = rng.random()
    shuffled = [parsed.descriptors[i] for i in rng.permutation(len(parsed.descriptors))]
    if kind < WHOLE:
        return render(parsed.object, shuffled, spec)
    return spec.separator.join(shuffled) if kind < WHOLE + STYLE else shuffled[0]


class _Pair(torch.nn.Module):
    """The text encoder, the image network and the scale of their cosines."""

    def __init__(self, text: torch.nn.Module, channels: int, spec: TextSpec) -> None:
        super().__init__()
        self.text = text
        torch.manual_seed(seed_of("guda.image-tower-init/1", spec.seed))
        self.image = _image_network(channels, spec.hidden_size)
        self.log_scale = torch.nn.Parameter(torch.tensor(math.log(START_SCALE)))

    def loss(self, ids: Tensor, x: Tensor, same: Tensor) -> Tensor:
        """Symmetric cross-entropy: `ids` [B, L], `x` [B, c, h, w], `same` [B, B] of equal captions."""
        texts = functional.normalize(self.text(ids).pooler_output, dim=-1)
        images = functional.normalize(self.image(x), dim=-1)
        logits = self.log_scale.exp().clamp(max=LARGEST_SCALE) * images @ texts.T
        wanted = same / same.sum(dim=1, keepdim=True)
        loss: Tensor = functional.cross_entropy(logits, wanted) + functional.cross_entropy(logits.T, wanted)
        return loss / 2.0


def _image_network(channels: int, width: int) -> torch.nn.Module:
    """[B, channels, h, w] to [B, width]: four convolutions, two of them of stride 2, then the mean."""
    layers: list[torch.nn.Module] = []
    for inputs, outputs, stride in ((channels, 32, 1), (32, 64, 2), (64, 128, 2), (128, 128, 1)):
        layers += [
            torch.nn.Conv2d(inputs, outputs, 3, stride, padding=1),
            torch.nn.GroupNorm(8, outputs),
            torch.nn.SiLU(),
        ]
    pool = [torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(128, width)]
    return torch.nn.Sequential(*layers, *pool)


def _same(captions: Sequence[str]) -> Tensor:
    """float32 [B, B]: 1 where two captions are equal."""
    places = {text: i for i, text in enumerate(dict.fromkeys(captions))}
    numbers = torch.tensor([places[text] for text in captions])
    return (numbers[:, None] == numbers[None, :]).float()


def _shortened(ids: Tensor, end: int) -> Tensor:
    """`ids` without the columns after the last row's end token; attention is causal, nobody reads them."""
    return ids[:, : int((ids == end).int().argmax(dim=1).max()) + 1]


def _as_input(images: Tensor) -> Tensor:
    """float32: pixels in [-1, 1], latents as they are."""
    return torch.from_numpy(to_float(images.numpy())) if images.dtype == torch.uint8 else images.float()
