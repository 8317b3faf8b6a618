"""The operator protocol: what an unlearning method does with the group's entries of a step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from guda_cli.data.styles import ParsedPrompt
from guda_cli.diffusion.prompt_bank import PromptBank
from guda_cli.diffusion.schedule import Schedule
from guda_cli.sections import TextSpec, UnlearnSpec
from guda_cli.training.stream import oriented
from guda_cli.unlearning import catalog


@dataclass(frozen=True, eq=False)
class ForgetBatch:
    """The group's entries of one step: image `indices` [F], clean `x0`, `noise`, `x_t`, `t` [F], `cond`.

    `rows` [F] are their places among the entries that are computed together; these are `only` [n] (None: all)
    of the `size` entries of step number `step`. `flip` [F] are the entries shown mirrored (None: none is).
    """

    indices: Tensor
    x0: Tensor
    noise: Tensor
    x_t: Tensor
    t: Tensor
    cond: Tensor | None = None
    rows: Tensor | None = None
    step: int = 0
    size: int = 0
    only: Tensor | None = None
    flip: Tensor | None = None

    def turned(self, images: Tensor) -> Tensor:
        """`images` [F, ..., W], one or several for each entry, mirrored where the entry itself is."""
        return images if self.flip is None else oriented(images, self.flip)

    def place(self, whole: Tensor, part: Tensor) -> Tensor:
        """`whole` [n, ...] with the group's rows replaced by `part` [F, ...]."""
        assert self.rows is not None
        return whole.index_copy(0, self.rows, part)


@dataclass(frozen=True, eq=False)
class TextProblem:
    """What anchor operators know of the N images' prompts and of the G groups' styles."""

    bank: PromptBank
    """The full model's; `Problem.cond` are indices into it."""
    prompts: tuple[str, ...]
    parsed: tuple[ParsedPrompt | None, ...]
    """None where a prompt has no style part."""
    membership: Tensor
    """bool [N, G]: which of `groups` an image is in."""
    groups: tuple[str, ...]
    styles: Mapping[str, tuple[str, ...]]
    """Style descriptors of each group."""
    spec: TextSpec
    embed: Callable[[Sequence[str]], Tensor]
    """Descriptors to embeddings [n, D], of unit length."""
    content: tuple[str, ...]
    """What each image shows, whatever its style."""
    removed: frozenset[str]
    """The groups that are removed; empty for a random set, of which no style is removed."""


@dataclass(frozen=True, eq=False)
class Problem:
    """What is unlearned from what: `images` [N, C, H, W] (uint8 or latents), `forget` [N] True for the group.

    `cond` [N, ...] is each image's condition (int64 [N]: classes, or prompts in a bank); a share `dropout` of
    the entries is shown with `null` [...] instead, as in training. `guard` [N] are weights of the forget
    terms. `text` is there for text-conditional models. With `flip` every image is shown mirrored half of the
    time, as it was in training.
    """

    images: Tensor
    forget: Tensor
    schedule: Schedule
    spec: UnlearnSpec
    cond: Tensor | None = None
    null: Tensor | None = None
    dropout: float = 0.0
    guard: Tensor | None = None
    text: TextProblem | None = None
    flip: bool = False

    def share(self, batch: ForgetBatch) -> Tensor:
        """How much each entry's forget term counts [F]: guard's weight within t_min..t_max, else 0."""
        T, spec = self.schedule.T, self.spec
        inside = (batch.t >= float(catalog.value(spec, "t_min")) * T) & (batch.t <= spec.t_max * T)
        weight = inside.float()
        return weight if self.guard is None else weight * self.guard[batch.indices].to(weight.device)


class Operator(Protocol):
    """One way to unlearn: built once a group from its Problem, then asked at every step."""

    def shown(self, batch: ForgetBatch) -> ForgetBatch:
        """The group's entries as the network is to see them: other `x_t` or `cond`, or as they are."""
        ...

    def loss(self, prediction: Tensor, target: Tensor, batch: ForgetBatch) -> Tensor:
        """Loss of a step (a scalar) from the raw `prediction` [B, C, H, W] for all its entries.

        `target` holds what entries outside the group should give; `batch` is what `shown` returned.
        """
        ...


def uniform(name: str, problem: Problem, batch: ForgetBatch, shape: Sequence[int] = ()) -> Tensor:
    """Uniform draws in [0, 1) for the group's entries, [F, *shape] in float64 on the CPU.

    Drawn for all entries of the step, so that the numbers of an entry do not depend on the group.
    """
    from guda_cli.diffusion.noise import generator

    assert batch.rows is not None
    g = generator(f"guda.{name}/1", problem.spec.seed, batch.step)
    drawn = torch.rand(batch.size, *shape, generator=g, dtype=torch.float64)
    rows = batch.rows.cpu()
    return drawn[rows if batch.only is None else batch.only[rows]]
