"""Measuring what unlearning did: denoising loss on the group and on the rest, trained on and held out."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from guda_cli.diffusion.denoiser import Denoiser, add_noise, squared_error, to_x0, training_target
from guda_cli.diffusion.noise import generator
from guda_cli.diffusion.schedule import Array
from guda_cli.diffusion.transfer import sent
from guda_cli.training.stream import oriented
from guda_cli.unlearning import membership
from guda_cli.unlearning.judgement import Losses, Sides

SIDE = 256  # loss evaluations a side, at most
LEAST = 8
TOLD = 128  # single images a side that are told apart, at most
LEVELS = 8  # timesteps that each of them is looked at


@dataclass(frozen=True, eq=False)
class Shown:
    """Images that losses are taken of, and which of them are the group's."""

    images: Tensor
    """uint8 [N, C, H, W], or latents."""
    members: Tensor
    """bool [N]."""
    cond: Tensor | None = None
    """Each image's condition [N, ...]."""
    flip: bool = False
    """Whether half of them are mirrored, as in training."""


class Check:
    """Takes the same losses under any model: `judgement.judge` compares two."""

    def __init__(self, training: Shown, held_out: Shown | None, steps: int, batch_size: int) -> None:
        """`steps` and `batch_size` are the unlearning's: a check does not outweigh it.

        Held-out images are looked at where there are two of the group and two of the rest at least.
        """
        entries = steps * batch_size
        self.side, self.told = side_of(steps, batch_size), max(LEAST, min(TOLD, entries // LEVELS))
        self.training = training
        few = held_out is None or min(_count(held_out.members), _count(~held_out.members)) < membership.LEAST
        self.held_out = None if few else held_out

    def look(self, denoiser: Denoiser, rows: int = 256) -> Losses:
        """The losses of one model, `rows` images a forward."""
        training = self._sides(denoiser, self.training, rows)
        if self.held_out is None or _count(self.training.members) < membership.LEAST:
            return Losses(training)
        sides = self._sides(denoiser, self.held_out, rows)
        member, other = (self._single(denoiser, shown, rows) for shown in (self.training, self.held_out))
        return Losses(training, sides, (member, other))

    def _sides(self, denoiser: Denoiser, shown: Shown, batch: int) -> Sides:
        def of(mask: Tensor) -> Array:
            rows = evaluation_rows(mask, self.side)
            return losses(denoiser, shown.images, rows, batch, cond=shown.cond, flip=shown.flip)

        return Sides(of(shown.members), of(~shown.members))

    def _single(self, denoiser: Denoiser, shown: Shown, batch: int) -> Array:
        members = _count(shown.members)
        rows = evaluation_rows(shown.members, min(self.told, members))
        return image_losses(denoiser, shown.images, rows, batch, cond=shown.cond)


def _count(mask: Tensor) -> int:
    return int(mask.sum())


def side_of(steps: int, batch_size: int) -> int:
    """Loss evaluations a side: no more than the run saw entries, so that a check never outweighs it."""
    return max(LEAST, min(SIDE, steps * batch_size))


def evaluation_rows(members: Tensor, side: int = SIDE) -> Tensor:
    """`side` indices of images where `members` [N] is True, seeded, cycling when there are fewer."""
    where = members.nonzero().flatten()
    order = where[torch.randperm(len(where), generator=generator("guda.check/1", "order"))]
    return order[torch.arange(side) % len(order)]


@torch.inference_mode()
def losses(
    denoiser: Denoiser, images: Tensor, rows: Tensor, batch_size: int = 256, *,
    cond: Tensor | None = None, flip: bool = False,
) -> Array:  # fmt: skip
    """Denoising loss per pixel [len(rows)] of `images[rows]` (uint8 or latents); t is stratified.

    `cond` [N, ...] is each image's condition. With `flip` half of them, seeded, are mirrored.
    """
    T = denoiser.schedule.T
    t = 1 + (torch.arange(len(rows)) * T) // len(rows)
    noise = torch.randn(len(rows), *images.shape[1:], generator=generator("guda.check/1", "noise"))
    mirrored = torch.rand(len(rows), generator=generator("guda.check/1", "flip")) < 0.5
    out = []
    for start in range(0, len(rows), batch_size):
        part = slice(start, start + batch_size)
        x0 = to_x0(images[rows[part]])
        x0 = oriented(x0, mirrored[part]) if flip else x0
        out.append(_errors(denoiser, x0, t[part], noise[part], None if cond is None else cond[rows[part]]))
    return torch.cat(out).cpu().double().numpy()


@torch.inference_mode()
def image_losses(
    denoiser: Denoiser, images: Tensor, rows: Tensor, batch_size: int = 256, *, cond: Tensor | None = None
) -> Array:
    """One number an image [len(rows)], comparable between images: mean log loss over LEVELS timesteps.

    The logarithm lets every level count alike. Timesteps and noise are the same for all: with noise of their
    own some would have the harder draws.
    """
    T = denoiser.schedule.T
    total, parts = torch.zeros(len(rows), dtype=torch.float64), []
    for level in range(LEVELS):
        t = torch.full((len(rows),), max(1, round((level + 0.5) * T / LEVELS)))
        noise = torch.randn(1, *images.shape[1:], generator=generator("guda.check/1", "told", level))
        for start in range(0, len(rows), batch_size):
            part = slice(start, start + batch_size)
            given = None if cond is None else cond[rows[part]]
            x0 = to_x0(images[rows[part]])
            parts.append(_errors(denoiser, x0, t[part], noise.expand_as(x0), given))
    for level in torch.cat(parts).view(LEVELS, -1).cpu().double():
        total += level.log() / LEVELS
    return total.numpy()


def _errors(denoiser: Denoiser, x0: Tensor, t: Tensor, noise: Tensor, cond: Tensor | None) -> Tensor:
    """Squared errors per pixel [B] on the denoiser's device, which need not be waited for."""
    x0, t, noise = (sent(part, denoiser.device) for part in (x0, t, noise))
    x_t = add_noise(denoiser.schedule, x0, noise, t)
    target = training_target(denoiser.schedule, x0, noise, t)
    given = None if cond is None else sent(cond, denoiser.device)
    return squared_error(denoiser.predict(x_t, t, given), target)
