"""What the tests beside measure on a device: `python -m tests.gpu.measures DEVICE WHAT` prints JSON."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from guda_cli.diffusion import elbo, grid
from guda_cli.diffusion.denoiser import Network
from guda_cli.diffusion.networks import to_bytes
from guda_cli.diffusion.prompt_bank import PromptBank
from guda_cli.families.pixels import UNetDenoiser
from guda_cli.families.stable_diffusion import ROW, TextDenoiser
from guda_cli.sections import TrainSpec
from guda_cli.training import loop
from guda_cli.training.step_losses import STEPS
from guda_cli.training.train import train
from guda_cli.unlearning.operators.base import Problem
from guda_cli.unlearning.unlearn import unlearn
from guda_cli.workflow.project import compute
from tests.diffusion.tiny import bytes_images, float_images, make_schedule, make_unet
from tests.unlearning import helpers, text_problem

COUNT = STEPS + 5  # more steps than losses are read together


def digest(weights: dict[str, Tensor]) -> str:
    return hashlib.sha256(to_bytes(weights)).hexdigest()


def attending(device: torch.device) -> UNetDenoiser:
    """A pixel network with attention on 16 x 16."""
    blocks = {"down_block_types": ("AttnDownBlock2D", "DownBlock2D"), "add_attention": True}
    blocks |= {"up_block_types": ("UpBlock2D", "AttnUpBlock2D"), "sample_size": 16}
    return UNetDenoiser(make_unet(0, **blocks).to(device), make_schedule())


def bank(device: torch.device) -> PromptBank:
    return PromptBank(lambda texts: {ROW: text_problem.encode(texts)}, device)


def reading(device: torch.device, prompts: PromptBank) -> TextDenoiser:
    """A network that reads prompts."""
    return TextDenoiser(text_problem.network(0).to(device), make_schedule(), prompts)


SPEC = TrainSpec(steps=COUNT, batch_size=16, lr=1e-3, warmup_steps=2, flip=True, seed=3)


def trained(device: torch.device) -> list[tuple[str, bool]]:
    hooks = loop.Hooks()
    weights = train(attending(device), bytes_images(24, (1, 16, 16)), SPEC, hooks=hooks)
    return [(digest(weights), hooks.repeatable)]


def trained_on_prompts(device: torch.device) -> list[tuple[str, bool]]:
    hooks, prompts = loop.Hooks(), bank(device)
    text = text_problem.text_problem(prompts)
    cond = prompts.indices(text.prompts)
    weights = train(
        reading(device, prompts), text_problem.latents(), SPEC, labels=cond, dropout=0.1, hooks=hooks
    )
    return [(digest(weights), hooks.repeatable)]


def unlearned(device: torch.device) -> list[tuple[str, bool]]:
    """By every operator."""
    found = []
    for operator in helpers.OPERATORS:
        hooks, prompts = loop.Hooks(), bank(device)
        text = text_problem.text_problem(prompts)
        p: Problem = text_problem.of(text, operator, steps=COUNT, neighbours=3, retain="distill", guard=False)
        full = reading(device, prompts)
        full.network.eval().requires_grad_(False)
        weights = unlearn(reading(device, prompts), p, teacher=full, hooks=hooks)
        found.append((digest(weights), hooks.repeatable))
    return found


def twice(make: Callable[[torch.device], list[tuple[str, bool]]], device: torch.device) -> Any:
    return [make(device), make(device)]


def terms(device: torch.device) -> Any:
    """ELBO terms on the device and on the CPU; and there, of one image alone and with others."""
    images, points = float_images(8, (1, 16, 16)), grid.build(grid.spec("strata", 8, 2, 0), 50)
    names = [f"image {i}" for i in range(len(images))]

    def of(network: Network, rows: slice) -> np.ndarray:
        return elbo.image_terms(network, images[rows], names[rows], points, seed=1, batch_size=64)

    there, here = attending(device), attending(torch.device("cpu"))
    there.network.eval(), here.network.eval()
    whole = of(there, slice(None))
    alone = np.concatenate([of(there, slice(i, i + 1)) for i in range(len(images))])
    reference = of(here, slice(None))
    return {
        "of the CPU's": float(np.abs(whole / reference - 1).max()),
        "alone": float(np.abs(alone / whole - 1).max()),
    }


def losses(device: torch.device) -> Any:
    """Losses that a training tells on the device, and on the CPU."""
    out = []
    for place in (device, torch.device("cpu")):
        told: list[float] = []
        train(attending(place), bytes_images(24, (1, 16, 16)), SPEC, hooks=loop.Hooks(on_step=told.append))
        out.append(told)
    return out


MEASURES: dict[str, Callable[[torch.device], Any]] = {
    "trained": lambda device: twice(trained, device),
    "trained on prompts": lambda device: twice(trained_on_prompts, device),
    "unlearned": lambda device: twice(unlearned, device),
    "terms": terms,
    "losses": losses,
}

if __name__ == "__main__":
    print(json.dumps(MEASURES[sys.argv[2]](compute.setup(sys.argv[1]).device)))
