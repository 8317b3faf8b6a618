"""Training one model on all images, or on those that remain without a group."""

from __future__ import annotations

import torch
from torch import Tensor

from guda_cli.diffusion.denoiser import UNetDenoiser, add_noise, training_target
from guda_cli.diffusion.schedule import Schedule
from guda_cli.recipe import TrainSpec, total_steps
from guda_cli.training import loop
from guda_cli.training.model_io import Weights
from guda_cli.training.state import RunState
from guda_cli.training.stream import Stream, pixels


def train(
    unet: torch.nn.Module,
    images: Tensor,
    schedule: Schedule,
    spec: TrainSpec,
    *,
    keep: Tensor | None = None,
    labels: Tensor | None = None,
    resume: RunState | None = None,
    hooks: loop.Hooks,
) -> Weights:
    """Final weights of `unet` trained on uint8 `images` [N, C, H, W] (only where `keep` [N] is True).

    Loss: mean squared error of the model's own prediction type, t uniform (Ho et al. 2020, eq. 14). A
    class-conditional `unet` needs `labels`, int64 [N]; a share `spec.class_dropout` of the entries is
    shown with the null class instead (classifier-free guidance, Ho & Salimans 2022). ValueError when there
    is none.
    """
    stream = Stream(len(images), spec.batch_size, schedule.T, tuple(images.shape[1:]), spec.seed, keep=keep)
    denoiser = UNetDenoiser(unet, schedule)
    if labels is not None and spec.class_dropout and denoiser.null_class is None:
        raise ValueError("class_dropout needs a null class")
    unet.train()

    def loss_at(step: int) -> Tensor:
        batch = stream.at(step)
        x0 = pixels(images, batch, flip=spec.flip).to(denoiser.device)
        noise, t = batch.noise.to(denoiser.device), batch.t.to(denoiser.device)
        x_t = add_noise(schedule, x0, noise, t)
        target = training_target(schedule, x0, noise, t)
        cond = None
        if labels is not None:
            dropped = stream.unlabelled(step, spec.class_dropout)
            cond = with_dropped(labels[batch.indices], dropped, denoiser.null_class).to(denoiser.device)
        return torch.nn.functional.mse_loss(denoiser.predict(x_t, t, cond), target)

    settings = loop.LoopSpec(
        steps=total_steps(spec, len(images)),
        lr=spec.lr,
        seed=spec.seed,
        warmup=spec.warmup_steps,
        decay_lr=spec.lr_schedule == "cosine",
        weight_decay=spec.weight_decay,
        grad_clip=spec.grad_clip,
        ema=spec.ema_decay,
    )
    return loop.run(unet, loss_at, settings, resume=resume, hooks=hooks)


def with_dropped(labels: Tensor, dropped: Tensor, null_class: int | None) -> Tensor:
    """`labels` int64 [B] with the null class where `dropped` [B] is True; nothing is dropped without one."""
    return labels if null_class is None else labels.masked_fill(dropped, null_class)
