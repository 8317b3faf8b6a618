"""Anchors: the group's prompts are answered as the full model answers a prompt without the group's style.

GUDA-C of Murata et al. 2026 (arXiv 2601.22651): ||eps_theta(x_t, t, c_f) - eps_full(x_t, t, c_a)||^2 with the
anchor prompt c_a, in the model's own prediction type.
"""

from __future__ import annotations

import dataclasses
import math
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from guda_cli.data.styles import render
from guda_cli.diffusion.denoiser import Denoiser, add_noise, to_x0
from guda_cli.diffusion.transfer import sent
from guda_cli.training.stream import Stream
from guda_cli.unlearning import catalog
from guda_cli.unlearning.operators.anchor_prompts import AnchorPrompts
from guda_cli.unlearning.operators.base import Drawn, Entries, ForgetBatch, Problem, TextProblem, uniform
from guda_cli.unlearning.operators.redirect import Redirect, Redirecting


class Anchor(Redirecting):
    """The frozen teacher's answer to an anchor prompt; what is asked is the subclass's.

    ValueError without prompts or without the full model.
    """

    def __init__(
        self, problem: Problem, *, full: Denoiser | None = None, parameters: Sequence[Tensor] = ()
    ) -> None:
        if full is None or problem.text is None or problem.cond is None:
            raise ValueError(f"{problem.spec.operator} needs each image's prompt and the full model")
        self.schedule, self.problem, self.text = problem.schedule, problem, problem.text
        self.full, self.cond = full, problem.cond
        self._ahead: AnchorPrompts | None = None

    @contextmanager
    def foreseen(self, stream: Stream, steps: int) -> Iterator[None]:
        """See `Foresighted`: the prompts of many steps are encoded together."""
        self._ahead = AnchorPrompts(self.text.bank, self.prompts, self.problem.forget, stream, steps)
        try:
            yield
        finally:
            self._ahead.close()
            self._ahead = None

    def shown(self, batch: ForgetBatch) -> ForgetBatch:
        """Every entry of the group with its own prompt: it is under this one that it is forgotten."""
        return dataclasses.replace(batch, cond=sent(self.cond[batch.indices], batch.x_t.device))

    @abstractmethod
    def prompts(self, batch: Entries) -> list[str]:
        """The F prompts that the teacher is asked about: each by its entry's place in the stream alone."""

    def latents(self, batch: ForgetBatch) -> Tensor:
        """The noisy latents [F, C, H, W] that it is shown, the entries' own."""
        return batch.x_t

    @torch.no_grad()
    def redirect(self, batch: ForgetBatch) -> Redirect:
        """The full model's raw prediction for these latents and prompts."""
        x_t = self.latents(batch)
        if self._ahead is not None:
            target = self.full.predict(x_t, batch.t, sent(self._ahead.of(batch), x_t.device))
        else:
            with self.text.bank.borrow(self.prompts(batch)) as cond:  # kept, they would pile up
                target = self.full.predict(x_t, batch.t, sent(cond, x_t.device))
        weight = catalog.value(self.problem.spec, "forget_weight") * self.problem.share(batch)
        return Redirect(target, weight, raw=True)


class StyleRemoved(Anchor):
    """`anchor:style-removed`: c_a is c_f without its style part; a prompt that has none stays as it is."""

    def prompts(self, batch: Entries) -> list[str]:
        """The prompts' objects."""
        return [object_of(self.text, i) for i in batch.indices.tolist()]


class OtherStyle(Anchor):
    """`anchor:awss` and `anchor:uniform`: c_a has the object of c_f and descriptors of a retain style.

    The style is drawn from `awss`, with beta = 0 where the operator is not awss. RecipeError when no
    style with descriptors is left.
    """

    def __init__(
        self, problem: Problem, *, full: Denoiser | None = None, parameters: Sequence[Tensor] = ()
    ) -> None:
        super().__init__(problem, full=full)
        text = self.text
        left = set(catalog.retained_styles(text.styles, text.removed))
        # one fixed order of all styles, so that an entry's draws do not depend on what is removed
        self.names = sorted(text.styles)
        self.retained = torch.tensor([name in left for name in self.names])
        self.counts = torch.tensor([len(text.styles[name]) for name in self.names])
        forget = problem.forget.nonzero().flatten()
        self.place = torch.zeros(len(problem.forget), dtype=torch.int64)
        self.place[forget] = torch.arange(len(forget))
        self.pi = self._probabilities(forget.tolist())

    def _probabilities(self, forget: Sequence[int]) -> Tensor:
        """pi [F, S] of the group's images."""
        if self.problem.spec.operator == "anchor:uniform":
            nothing = torch.zeros(max(len(forget), len(self.names)), 1)
            return awss(nothing[: len(forget)], nothing[: len(self.names)], self.retained, 0.0, 0.0)
        own = [descriptors_of(self.text, i) for i in forget]
        styles = [self.text.styles[name] for name in self.names]
        known = {word: i for i, word in enumerate(sorted({w for words in (*own, *styles) for w in words}))}
        table = self.text.embed(tuple(known))
        e, p = (
            mean_embeddings(table, [[known[w] for w in words] for words in lists]) for lists in (own, styles)
        )
        spec = self.problem.spec
        return awss(e, p, self.retained, spec.beta, spec.eta)

    def prompts(self, batch: Entries) -> list[str]:
        """The anchor prompt of each entry, drawn by the entry's place in the stream, whatever the group."""
        pi = self.pi[self.place[batch.indices]]
        style = draw_styles(pi, uniform("anchor.style", self.problem, batch, pi.shape[1:]))
        u = uniform("anchor.descriptors", self.problem, batch, [int(self.counts.max())])
        number = self.problem.spec.anchor_descriptors
        chosen = draw_descriptors(self.counts[style], u, number).tolist()
        out = []
        for i, s, places in zip(batch.indices.tolist(), style.tolist(), chosen, strict=True):
            words = self.text.styles[self.names[s]]
            drawn = [words[j] for j in places if j >= 0]
            out.append(render(object_of(self.text, i), drawn, self.text.spec))
        return out


class Matched(Anchor):
    """`anchor:matched`: the teacher sees a retain image of the same content, with that image's own prompt.

    Noise and t are the same. A teacher that denoises well finds the same noise in both latents, so of all
    anchors this one forgets least where the prediction is the noise. Images without such a partner
    (`unmatched` counts them) are redirected as by awss.
    """

    def __init__(
        self, problem: Problem, *, full: Denoiser | None = None, parameters: Sequence[Tensor] = ()
    ) -> None:
        super().__init__(problem, full=full)
        known = {content: i for i, content in enumerate(sorted(set(self.text.content)))}
        content = torch.tensor([known[name] for name in self.text.content])
        retain = (~problem.forget).nonzero().flatten()
        self.partners = retain[content[retain].argsort(stable=True)]  # content by content
        counts = torch.bincount(content[retain], minlength=len(known))
        self.count, self.first = counts[content], (counts.cumsum(0) - counts)[content]
        self.unmatched = int((problem.forget & (self.count == 0)).sum())
        self.fallback = OtherStyle(problem, full=full) if self.unmatched else None

    def prompts(self, batch: Entries) -> list[str]:
        """The partners' prompts; where there is none, the fallback's."""
        rows, alone = self._partners(batch)
        prompts = [self.text.prompts[row] for row in rows.tolist()]
        if self.fallback is None or not bool(alone.any()):
            return prompts
        rest = Drawn(batch.indices[alone], batch.entries[alone], batch.step, batch.size)
        for i, text in zip(alone.nonzero().flatten().tolist(), self.fallback.prompts(rest), strict=True):
            prompts[i] = text
        return prompts

    def latents(self, batch: ForgetBatch) -> Tensor:
        """The partners' latents with the entries' noise; where there is no partner, the entry's own."""
        rows, alone = self._partners(batch)
        x0 = batch.turned(to_x0(sent(self.problem.images[rows], batch.x_t.device)))
        x_t = add_noise(self.schedule, x0, batch.noise, batch.t)
        if not bool(alone.any()):
            return x_t
        return torch.where(sent(alone, x_t.device).view(-1, 1, 1, 1), batch.x_t, x_t)

    def _partners(self, batch: Entries) -> tuple[Tensor, Tensor]:
        """Each entry's partner, an image int64 [F] drawn anew at every step; which have none, bool [F]."""
        count = self.count[batch.indices]
        offset = (uniform("anchor.partner", self.problem, batch) * count).long()
        rows = self.partners[(self.first[batch.indices] + offset).clamp(max=len(self.partners) - 1)]
        return rows, count == 0


def object_of(text: TextProblem, image: int) -> str:
    """The object part of an image's prompt; the whole prompt where it does not parse."""
    parsed = text.parsed[image]
    return text.prompts[image] if parsed is None else parsed.object


def descriptors_of(text: TextProblem, image: int) -> tuple[str, ...]:
    """The style descriptors of an image's prompt; where it has none, those of the groups that it is in."""
    parsed = text.parsed[image]
    if parsed is not None and parsed.descriptors:
        return parsed.descriptors
    groups = [text.groups[g] for g in text.membership[image].nonzero().flatten().tolist()]
    return tuple(word for group in groups for word in text.styles.get(group, ()))


def mean_embeddings(table: Tensor, owned: Sequence[Sequence[int]]) -> Tensor:
    """Mean unit embedding [B, D] of the rows of `table` [M, D] that each of B owners has, 0 without any.

    Of a style's descriptors it is the style's prototype p_s, of a prompt's own descriptors its e(c). Both are
    of unit length again, as in the code of Murata et al. 2026: else beta would count for less, and styles of
    few or like descriptors be preferred.
    """
    normalize = torch.nn.functional.normalize
    unit = normalize(table.cpu().double(), dim=1)
    owner = torch.tensor([i for i, rows in enumerate(owned) for _ in rows], dtype=torch.int64)
    row = torch.tensor([j for rows in owned for j in rows], dtype=torch.int64)
    total = torch.zeros(len(owned), table.shape[1], dtype=torch.float64).index_add_(0, owner, unit[row])
    return normalize(total, dim=1)


def awss(e: Tensor, p: Tensor, retained: Tensor, beta: float, eta: float) -> Tensor:
    """pi [B, S] = (1 - eta) softmax_s(beta <e, p_s>) + eta / |S_retain| over `retained` [S], 0 elsewhere.

    `e` [B, D] are `mean_embeddings` of prompts, `p` [S, D] of styles; in log space. ValueError when no style
    is retained.
    """
    if not bool(retained.any()):
        raise ValueError("no style is retained")
    score = (beta * (e.double() @ p.double().T)).masked_fill(~retained, -math.inf)
    share = torch.tensor(eta, dtype=torch.float64)
    even = torch.zeros_like(score).masked_fill(~retained, -math.inf) - math.log(int(retained.sum()))
    return torch.logaddexp(torch.log1p(-share) + torch.log_softmax(score, dim=1), share.log() + even).exp()


def draw_styles(pi: Tensor, u: Tensor) -> Tensor:
    """One style an entry [F] from probabilities `pi` [F, S], by uniform draws `u` [F, S] in [0, 1).

    Gumbel-max (Gumbel 1954), with a draw for each style: where another style is left out, only the entries
    that had drawn it change.
    """
    return (pi.log() - torch.log(-u.log())).argmax(1)


def draw_descriptors(counts: Tensor, u: Tensor, number: int) -> Tensor:
    """`number` different descriptors an entry, as places among its style's `counts` [F]: int64 [F, number].

    `u` [F, M] are uniform draws, M at least the largest count; -1 fills up where a style has fewer.
    """
    order = u.masked_fill(torch.arange(u.shape[1]) >= counts.unsqueeze(1), math.inf).argsort(1)[:, :number]
    return order.masked_fill(order >= counts.unsqueeze(1), -1)
