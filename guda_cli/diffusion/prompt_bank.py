"""Prompts as conditions: a bank of text embeddings, in which a condition is the index of its prompt."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

Encode = Callable[[Sequence[str]], Tensor]
"""Texts to embeddings float32 [n, L, D] (on any device), one row a text, independent of each other."""


class PromptBank:
    """Embeddings of distinct prompts; index 0 is the empty prompt, the null condition.

    So a batch of conditions is int64 [N] like class labels are, and the embeddings of a prompt are computed
    once. New prompts are encoded when they are first asked for.
    """

    def __init__(self, encode: Encode, device: torch.device, dtype: torch.dtype = torch.float32) -> None:
        self._encode, self.device, self.dtype = encode, device, dtype
        self._places: dict[str, int] = {}
        self._table: Tensor | None = None  # a row a prompt, and room for more
        self.indices([""])

    def __len__(self) -> int:
        return len(self._places)

    def preload(self, prompts: Sequence[str], embeddings: Tensor) -> None:
        """Take over `embeddings` [n, L, D] computed earlier, of those `prompts` that are not there yet."""
        fresh = [i for i, text in enumerate(prompts) if text not in self._places]
        if fresh:
            self._add([prompts[i] for i in fresh], embeddings[fresh])

    def indices(self, prompts: Sequence[str]) -> Tensor:
        """Index of each prompt, int64 [len(prompts)] on the CPU; unknown ones are encoded first."""
        fresh = [text for text in dict.fromkeys(prompts) if text not in self._places]
        if fresh:
            with torch.inference_mode():
                found = self._encode(fresh)
            self._add(fresh, found.clone())
        return torch.tensor([self._places[text] for text in prompts], dtype=torch.int64)

    @contextmanager
    def borrow(self, prompts: Sequence[str]) -> Iterator[Tensor]:
        """`indices` of `prompts` for as long as the context lasts: prompts new to the bank leave it again."""
        known = len(self)
        try:
            yield self.indices(prompts)
        finally:
            while len(self._places) > known:
                self._places.popitem()

    def embeddings(self, indices: Tensor) -> Tensor:
        """Embeddings [N, L, D] of int64 `indices` [N], on the bank's device."""
        assert self._table is not None
        return self._table[indices.to(self.device)]

    def _add(self, prompts: Sequence[str], embeddings: Tensor) -> None:
        rows = embeddings.to(self.device, self.dtype)
        if self._table is None:
            self._table = self._room(0, rows.shape[1:])
        if rows.shape[1:] != self._table.shape[1:]:
            raise ValueError(f"embeddings {list(rows.shape[1:])} in a bank of {list(self._table.shape[1:])}")
        known, needed = len(self), len(self) + len(rows)
        if needed > len(self._table):  # a quarter more than needed, so that few prompts at a time stay cheap
            room = self._room(needed + known // 4, rows.shape[1:])
            room[:known] = self._table[:known]
            self._table = room
        self._table[known:needed] = rows
        for text in prompts:
            self._places[text] = len(self._places)

    @torch.inference_mode(False)  # a batch of training may read what was first asked for in scoring
    def _room(self, rows: int, shape: Sequence[int]) -> Tensor:
        return torch.empty(rows, *shape, device=self.device, dtype=self.dtype)
