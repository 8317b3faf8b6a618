"""Adapter of a diffusers `UNet2DConditionModel`: the condition is the index of a prompt in a bank."""

from __future__ import annotations

import torch
from torch import Tensor

from guda_cli.diffusion.prompt_bank import PromptBank
from guda_cli.diffusion.schedule import Schedule


class TextDenoiser:
    """A text-conditional network in latent space; see `Denoiser`.

    `predict` takes prompt indices int64 [N]; None stands for the empty prompt (classifier-free guidance, Ho
    & Salimans 2022). Forwards run in `dtype`, the prediction is float32.
    """

    null: int | None = 0
    """Index of the null condition, the empty prompt."""

    def __init__(
        self,
        network: torch.nn.Module,
        schedule: Schedule,
        bank: PromptBank,
        dtype: torch.dtype | None = None,
    ) -> None:
        self.network, self.schedule, self.bank = network, schedule, bank
        first = next(network.parameters())
        self.dtype, self.device = dtype or first.dtype, first.device

    def predict(self, x_t: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        """See `Denoiser.predict`; `cond` are prompt indices int64 [N]."""
        if cond is None:
            cond = torch.zeros_like(t)
        if cond.shape != t.shape or cond.dtype != torch.int64:
            raise ValueError(f"prompts must be int64 {list(t.shape)}, not {cond.dtype} {list(cond.shape)}")
        text = self.bank.embeddings(cond).to(self.dtype)
        out: Tensor = self.network(x_t.to(self.dtype), t - 1, encoder_hidden_states=text, return_dict=False)[
            0
        ]
        return out.float()
