"""A text-to-image problem small enough to train: latents of styles x contents, their prompts and a bank."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from guda_cli.data.styles import ParsedPrompt, render
from guda_cli.diffusion.denoiser import add_noise
from guda_cli.diffusion.noise import generator
from guda_cli.diffusion.prompt_bank import PromptBank
from guda_cli.diffusion.schedule import Schedule
from guda_cli.families.stable_diffusion import ROW, TextDenoiser
from guda_cli.sections import TextSpec, UnlearnSpec
from guda_cli.training.stream import Stream
from guda_cli.unlearning.operators.base import ForgetBatch, Problem, TextProblem
from tests.diffusion.tiny import make_schedule

SPEC = TextSpec()
STYLES = {
    "ink": ("thick lines", "black and white", "no shading", "rough edges"),
    "oil": ("soft gradients", "warm colours", "visible brush", "rough edges"),
    "pixel": ("square dots", "few colours"),
    "wash": ("soft gradients", "pale colours", "paper grain", "bleeding edges", "no outlines"),
}
GROUPS = tuple(STYLES)
CONTENTS = ("a cat", "a boat", "a tree", "a lamp", "a shoe", "a bell")
COUNT, BATCH, SHAPE = len(GROUPS) * len(CONTENTS), 16, (2, 4, 4)
TOKENS, WIDTH = 6, 8
UNET: dict[str, Any] = {
    "sample_size": 4,
    "in_channels": SHAPE[0],
    "out_channels": SHAPE[0],
    "block_out_channels": (16,),
    "layers_per_block": 1,
    "down_block_types": ("CrossAttnDownBlock2D",),
    "mid_block_type": None,
    "up_block_types": ("CrossAttnUpBlock2D",),
    "norm_num_groups": 4,
    "attention_head_dim": 2,
    "cross_attention_dim": WIDTH,
}


def vector(text: str, width: int = WIDTH) -> Tensor:
    """A unit vector that is a function of the text."""
    drawn = torch.randn(width, generator=generator("test.text", text))
    return drawn / drawn.norm()


def encode(texts: Sequence[str]) -> Tensor:
    """A token for each part between commas, the rest 0: prompts with a part in common share its token."""
    out = torch.zeros(len(texts), TOKENS, WIDTH)
    for row, text in zip(out, texts, strict=True):
        for token, part in zip(row, text.replace("artistic style featuring ", "").split(", "), strict=False):
            token.copy_(vector(part) * 3 if part else token)
    return out


def embed(texts: Sequence[str]) -> Tensor:
    return torch.stack([vector(text, 64) for text in texts])


def bank() -> PromptBank:
    return PromptBank(lambda texts: {ROW: encode(texts)}, torch.device("cpu"))


def network(seed: int = 0, **changes: Any) -> torch.nn.Module:
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return UNet2DConditionModel(**{**UNET, **changes})


def denoiser(prompts: PromptBank, schedule: Schedule | None = None, seed: int = 0) -> TextDenoiser:
    return TextDenoiser(network(seed).eval(), schedule or make_schedule(), prompts)


def latents() -> Tensor:
    """float32 [COUNT, *SHAPE]: a pattern of the style, one of the content and a little noise."""

    def pattern(name: str) -> Tensor:
        return torch.randn(SHAPE, generator=generator("test.pattern", name))

    return torch.stack(
        [
            pattern(style) + 0.5 * pattern(content) + 0.1 * pattern(style + content)
            for style in GROUPS
            for content in CONTENTS
        ]
    )


def parsed() -> tuple[ParsedPrompt, ...]:
    """Each image's object with two descriptors of its style."""
    return tuple(
        ParsedPrompt(content, (words[i % len(words)], words[(i + 1) % len(words)]))
        for words in STYLES.values()
        for i, content in enumerate(CONTENTS)
    )


def text_problem(prompts: PromptBank | None = None, removed: Sequence[str] = ("oil",)) -> TextProblem:
    parts = parsed()
    member = torch.eye(len(GROUPS), dtype=torch.bool).repeat_interleave(len(CONTENTS), dim=0)
    return TextProblem(
        bank=prompts or bank(),
        prompts=tuple(render(p.object, p.descriptors, SPEC) for p in parts),
        parsed=parts,
        membership=member,
        groups=GROUPS,
        styles=STYLES,
        spec=SPEC,
        embed=embed,
        content=CONTENTS * len(GROUPS),
        removed=frozenset(removed),
    )


def of(text: TextProblem, operator: str, schedule: Schedule | None = None, **changes: Any) -> Problem:
    """The problem of forgetting `text.removed`."""
    forget = text.membership[:, [name in text.removed for name in GROUPS]].any(1)
    spec = UnlearnSpec(operator=operator, steps=3, batch_size=BATCH, lr=1e-3)
    return Problem(
        latents(), forget, schedule or make_schedule(), dataclasses.replace(spec, **changes),
        text.bank.indices(text.prompts), torch.tensor(0), text=text,
    )  # fmt: skip


def problem(operator: str, schedule: Schedule | None = None, **changes: Any) -> Problem:
    return of(text_problem(), operator, schedule, **changes)


def stream(p: Problem) -> Stream:
    return Stream(COUNT, BATCH, p.schedule.T, SHAPE, seed=0)


def entries(p: Problem, step: int = 0) -> ForgetBatch:
    """The group's entries of a step of the stream, shown with their own prompts."""
    batch = stream(p).at(step)
    rows = p.forget[batch.indices].nonzero().flatten()
    assert 0 < len(rows) < BATCH
    assert p.cond is not None
    indices = batch.indices[rows]
    x0, noise, t = p.images[indices], batch.noise[rows], batch.t[rows]
    x_t = add_noise(p.schedule, x0, noise, t)
    return ForgetBatch(indices, x0, noise, x_t, t, p.cond[indices], rows, step, BATCH)
