"""The prompts that a run's anchors ask about: known from the seed, so encoded together beforehand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack

import torch
from torch import Tensor

from guda_cli.diffusion.prompt_bank import PromptBank
from guda_cli.training.stream import Stream
from guda_cli.unlearning.operators.base import Drawn, Entries

BOUND = 256 << 20  # bytes of rows that are in the bank for this at once


class AnchorPrompts:
    """The conditions of each step's entries of the group, a stretch of steps at a time.

    A stretch has as many steps as its prompts' rows fit into BOUND; where it begins and ends does not depend
    on where a run is taken up. Nothing is in the bank twice, and after `close` nothing of it is left there.
    """

    def __init__(
        self,
        bank: PromptBank,
        prompts: Callable[[Entries], Sequence[str]],
        forget: Tensor,
        stream: Stream,
        steps: int,
    ) -> None:
        """`prompts` are those of the entries of a step; `forget` [N] marks the group."""
        self.bank, self.prompts, self.forget = bank, prompts, forget
        self.stream, self.steps = stream, steps
        self._lent = ExitStack()
        self._begin, self._end = 0, 0
        self._conditions: dict[int, Tensor] = {}

    def of(self, batch: Entries) -> Tensor:
        """Index in the bank of the prompt of each of a step's entries, int64 [F] on the CPU."""
        if not self._begin <= batch.step < self._end:
            self._turn_to(batch.step)
        return self._conditions[batch.step][batch.entries]

    def close(self) -> None:
        """Take the prompts out of the bank again."""
        self._lent.close()
        self._begin, self._end, self._conditions = 0, 0, {}

    def _turn_to(self, step: int) -> None:
        """Encode the stretch that `step` is in."""
        begin = self._end if step >= self._end else 0
        self.close()
        while True:
            asked = self._stretch(begin)
            if step < begin + len(asked):
                break
            begin += len(asked)
        texts = list(dict.fromkeys(text for _, prompts in asked for text in prompts))
        found = self._lent.enter_context(self.bank.borrow(texts)).tolist()
        places = dict(zip(texts, found, strict=True))
        for number, (drawn, prompts) in enumerate(asked, start=begin):
            told = torch.full((drawn.size,), -1)
            told[drawn.entries] = torch.tensor([places[text] for text in prompts], dtype=torch.int64)
            self._conditions[number] = told
        self._begin, self._end = begin, begin + len(asked)

    def _stretch(self, begin: int) -> list[tuple[Drawn, Sequence[str]]]:
        """Entries and prompts of the steps from `begin` on, one step at least."""
        found: list[tuple[Drawn, Sequence[str]]] = []
        fresh: set[str] = set()
        while begin + len(found) < self.steps:
            drawn = self._drawn(begin + len(found))
            prompts = self.prompts(drawn)
            fresh.update(text for text in prompts if text not in self.bank)
            if found and len(fresh) * self.bank.row_bytes > BOUND:
                break
            found.append((drawn, prompts))
        return found

    def _drawn(self, step: int) -> Drawn:
        """The group's entries of a step."""
        indices = self.stream.indices(step)
        entries = self.forget[indices].nonzero().flatten()
        return Drawn(indices[entries], entries, step, len(indices))
