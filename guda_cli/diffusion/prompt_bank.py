"""Prompts as conditions: a bank of what they become, in which a condition is the index of its prompt."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from guda_cli.diffusion.transfer import sent

Rows = Mapping[str, Tensor]
"""Named tensors that prompts become, each [n, ...] with one row a prompt, on any device."""
Encode = Callable[[Sequence[str]], Rows]
"""Texts to rows, independent of each other."""


MASK, TEXT = "mask", "text"
"""Names of rows as long as the longest text: where it counts [n, L], and what it is [n, L, D]."""


def lengthened(values: Tensor, length: int, name: str) -> Tensor:
    """Rows of that name filled up with zeros to `length`; others as they are."""
    if name not in (MASK, TEXT) or values.shape[1] >= length:
        return values
    more = (0, length - values.shape[1]) if values.dim() == 2 else (0, 0, 0, length - values.shape[1])
    return torch.nn.functional.pad(values, more)


class PromptBank:
    """What distinct prompts become, as named rows; index 0 is the empty prompt, the null condition.

    So a batch of conditions is int64 [N] like class labels are, and the rows of a prompt are computed
    once. New prompts are encoded when they are first asked for.
    """

    def __init__(self, encode: Encode, device: torch.device) -> None:
        self._encode, self.device = encode, device
        self._places: dict[str, int] = {}
        self._tables: dict[str, Tensor] = {}  # a row a prompt, and room for more
        self.indices([""])

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, prompt: object) -> bool:
        return prompt in self._places

    @property
    def row_bytes(self) -> int:
        """What a prompt takes."""
        return sum(table[:1].nbytes for table in self._tables.values())

    def preload(self, prompts: Sequence[str], rows: Rows) -> None:
        """Take over `rows` [n, ...] computed earlier, of those `prompts` that are not there yet."""
        fresh = [i for i, text in enumerate(prompts) if text not in self._places]
        if fresh:
            self._add([prompts[i] for i in fresh], {name: values[fresh] for name, values in rows.items()})

    def indices(self, prompts: Sequence[str]) -> Tensor:
        """Index of each prompt, int64 [len(prompts)] on the CPU; unknown ones are encoded first."""
        fresh = [text for text in dict.fromkeys(prompts) if text not in self._places]
        if fresh:
            with torch.inference_mode():
                found = self._encode(fresh)
            self._add(fresh, {name: values.clone() for name, values in found.items()})
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

    def rows(self, indices: Tensor) -> dict[str, Tensor]:
        """Named rows, each [N, ...], of int64 `indices` [N], on the bank's device."""
        where = sent(indices, self.device)
        return {name: table[where] for name, table in self._tables.items()}

    def told(self, cond: Tensor | None, t: Tensor) -> dict[str, Tensor]:
        """`rows` of a batch's conditions `cond` [N], of the empty prompt for None; `t` [N] is its time.

        ValueError for conditions that are no int64 [N].
        """
        if cond is None:
            cond = torch.zeros_like(t)
        if cond.shape != t.shape or cond.dtype != torch.int64:
            raise ValueError(f"prompts must be int64 {list(t.shape)}, not {cond.dtype} {list(cond.shape)}")
        return self.rows(cond)

    def _add(self, prompts: Sequence[str], rows: Rows) -> None:
        known, needed = len(self), len(self) + len(prompts)
        if MASK in rows:
            rows = self._as_long(rows)
        for name, given in rows.items():
            values = given.to(self.device, torch.float32 if given.is_floating_point() else given.dtype)
            if name not in self._tables:
                self._tables[name] = self._room(0, values)
            table = self._tables[name]
            if values.shape[1:] != table.shape[1:]:
                raise ValueError(f"{name} {list(values.shape[1:])} in a bank of {list(table.shape[1:])}")
            if needed > len(table):  # a quarter more than needed, so that few prompts at a time stay cheap
                room = self._room(needed + known // 4, values)
                room[:known] = table[:known]
                self._tables[name] = table = room
            table[known:needed] = values
        for text in prompts:
            self._places[text] = len(self._places)

    def _as_long(self, rows: Rows) -> Rows:
        """`rows` and those that are there, all filled up to the longest."""
        here = self._tables[MASK].shape[1] if MASK in self._tables else 0
        longest = max(here, rows[MASK].shape[1])
        if here and here < longest:
            with torch.inference_mode(False):
                self._tables = {
                    name: lengthened(table, longest, name) for name, table in self._tables.items()
                }
        return {name: lengthened(values, longest, name) for name, values in rows.items()}

    @torch.inference_mode(False)  # a batch of training may read what was first asked for in scoring
    def _room(self, rows: int, like: Tensor) -> Tensor:
        return torch.empty(rows, *like.shape[1:], device=self.device, dtype=like.dtype)
