"""Training one model on all images, or on those that remain without a group."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from guda_cli.diffusion.denoiser import Network, add_noise, training_target
from guda_cli.diffusion.networks import Weights
from guda_cli.diffusion.transfer import sent
from guda_cli.sections import TrainSpec, total_steps
from guda_cli.training import loop
from guda_cli.training.precision import mixed
from guda_cli.training.run_state import RunState
from guda_cli.training.scale import Parts, Scale, checkpointed
from guda_cli.training.stream import Stream, clean


def train(
    denoiser: Network,
    images: Tensor,
    spec: TrainSpec,
    *,
    keep: Tensor | None = None,
    labels: Tensor | None = None,
    dropout: float = 0.0,
    resume: RunState | None = None,
    hooks: loop.Hooks,
) -> Weights:
    """Final weights of the network trained on `images` [N, C, H, W], uint8 or latents, that `keep` [N] marks.

    Loss: mean squared error of the model's own prediction type, t uniform (Ho et al. 2020, eq. 14). A
    conditional network needs `labels`, int64 [N] (classes, or prompts in its bank); a share `dropout` of the
    entries is shown with the null condition instead (classifier-free guidance, Ho & Salimans 2022).
    ValueError when there is none. `spec` also says in how many parts a batch is computed, and in which
    precision; RecipeError for what the network or the device cannot do.
    """
    network, schedule, device, scale = denoiser.network, denoiser.schedule, denoiser.device, Scale.of(spec)
    parts = Parts(scale, spec.batch_size)
    model = mixed(denoiser, scale.precision)
    stream = Stream(len(images), spec.batch_size, schedule.T, tuple(images.shape[1:]), spec.seed, keep=keep)
    if labels is not None and dropout and denoiser.null is None:
        raise ValueError("dropping conditions needs a null condition")
    network.train()

    def losses_at(step: int) -> Iterator[Tensor]:
        whole, cond = stream.at(step), None
        if labels is not None:
            dropped = stream.unlabelled(step, dropout)
            cond = with_dropped(labels[whole.indices], dropped, denoiser.null)
        for rows in parts:
            batch = whole.take(rows)
            x0 = clean(images, batch, flip=spec.flip, device=device)
            noise, t = sent(batch.noise, device), sent(batch.t, device)
            x_t = add_noise(schedule, x0, noise, t)
            target = training_target(schedule, x0, noise, t)
            shown = None if cond is None else sent(cond[rows], device)
            loss = torch.nn.functional.mse_loss(model.predict(x_t, t, shown), target)
            yield loss * (len(rows) / spec.batch_size)

    with checkpointed(network, scale.checkpointing):
        return loop.run(
            network, losses_at, settings(spec, len(images)), parts=parts, resume=resume, hooks=hooks
        )


def settings(spec: TrainSpec, images: int) -> loop.LoopSpec:
    """The optimiser settings of a training on `images` images."""
    return loop.LoopSpec(
        steps=total_steps(spec, images),
        lr=spec.lr,
        seed=spec.seed,
        warmup=spec.warmup_steps,
        decay_lr=spec.lr_schedule == "cosine",
        weight_decay=spec.weight_decay,
        grad_clip=spec.grad_clip,
        ema=spec.ema_decay,
        scaled=spec.mixed_precision == "fp16",
    )


def with_dropped(labels: Tensor, dropped: Tensor, null: int | None) -> Tensor:
    """`labels` int64 [B] with the null class where `dropped` [B] is True; nothing is dropped without one."""
    return labels if null is None else labels.masked_fill(dropped, null)
