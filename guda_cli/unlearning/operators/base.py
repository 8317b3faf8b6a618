"""The operator protocol: what an unlearning method does with the group's entries of a step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from guda_cli.data.styles import ParsedPrompt
from guda_cli.diffusion.prompt_bank import PromptBank
from guda_cli.diffusion.schedule import Schedule
from guda_cli.diffusion.transfer import sent
from guda_cli.sections import TextSpec, UnlearnSpec
from guda_cli.training.stream import Stream, oriented
from guda_cli.unlearning import catalog


class Entries(Protocol):
    """Entries of the group in a step, by what is known of them without their images."""

    @property
    def indices(self) -> Tensor:
        """Which images they show, int64 [F]."""
        ...

    @property
    def entries(self) -> Tensor:
        """Which of the step's `size` entries they are, int64 [F] on the CPU."""
        ...

    @property
    def step(self) -> int:
        """The step's number."""
        ...

    @property
    def size(self) -> int:
        """Entries of the whole batch."""
        ...


class Drawn(NamedTuple):
    """`Entries` and no more."""

    indices: Tensor
    entries: Tensor
    step: int
    size: int


@dataclass(frozen=True, eq=False)
class ForgetBatch:
    """The group's entries of one step: image `indices` [F], clean `x0`, `noise`, `x_t`, `t` [F], `cond`.

    `rows` [F] are their places among the entries that are computed together; these are `only` [n] (None: all)
    of the `size` entries of step number `step`. `flip` [F] are the entries shown mirrored (None: none is).
    `at` is `rows` on the CPU, where it is known there: asking a GPU for it would wait for its work.
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
    at: Tensor | None = None

    @property
    def entries(self) -> Tensor:
        """Which of the step's `size` entries they are, int64 [F] on the CPU."""
        assert self.rows is not None
        rows = self.rows.cpu() if self.at is None else self.at
        return rows if self.only is None else self.only[rows]

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
        return weight if self.guard is None else weight * sent(self.guard[batch.indices], weight.device)


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


@runtime_checkable
class Foresighted(Protocol):
    """An operator that makes use of knowing all steps beforehand."""

    def foreseen(self, stream: Stream, steps: int) -> AbstractContextManager[object]:
        """Inside, steps 0 to `steps` - 1 of `stream` are asked for, in order, from any of them on."""
        ...


def uniform(name: str, problem: Problem, batch: Entries, shape: Sequence[int] = ()) -> Tensor:
    """Uniform draws in [0, 1) for the group's entries, [F, *shape] in float64 on the CPU.

    Drawn for all entries of the step, so that the numbers of an entry do not depend on the group.
    """
    from guda_cli.diffusion.noise import generator

    g = generator(f"guda.{name}/1", problem.spec.seed, batch.step)
    drawn = torch.rand(batch.size, *shape, generator=g, dtype=torch.float64)
    return drawn[batch.entries]
