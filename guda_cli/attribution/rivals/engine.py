"""What a rival method must do: prepare once, then score training images for queries."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from guda_cli.data.queries import Query
from guda_cli.diffusion.schedule import Array

Arrays = dict[str, Any]
Advance = Callable[[int], None]


@dataclass(frozen=True)
class Prepared:
    """Arrays that a method computes once, what they cost in forward-equivalents, and facts to record."""

    arrays: Arrays
    forwards: float
    facts: Mapping[str, Any]


class Engine(ABC):
    """One method on one model: `prepare` once, then `scores` of queries from what was prepared."""

    @abstractmethod
    def expected_forwards(self) -> int:
        """Forward-equivalents of `prepare`, for its progress bar."""

    @abstractmethod
    def prepare(self, advance: Advance) -> Prepared:
        """What every query needs; `advance` hears forward-equivalents as they are done."""

    @abstractmethod
    def scores(self, prepared: Arrays, queries: Sequence[Query]) -> tuple[Array, float]:
        """Scores [queries, N] of the pool's images and the forward-equivalents they cost."""
