"""Shares of an image over several groups, as plain values, JSON and rows of a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from guda_cli.jsonable import plain
from guda_cli.report.pieces.text import UNKNOWN, finite, significant

SCHEMA = "guda.shares/1"
COLUMNS = ("group", "alone", "±", "Shapley", "±", "Banzhaf", "±")
PAIR_COLUMNS = ("groups", "excess", "±")


@dataclass(frozen=True)
class GroupShare:
    """One group: its score alone, and its shares; each with a standard error, NaN where there is none."""

    group: str
    alone: float
    alone_se: float
    shapley: float
    shapley_se: float
    banzhaf: float
    banzhaf_se: float


@dataclass(frozen=True)
class PairExcess:
    """What removing two groups together does beyond the sum of both alone, and its standard error."""

    groups: tuple[str, str]
    excess: float
    se: float


@dataclass(frozen=True)
class ImageShares:
    """An image's shares. `total` is the score of all groups together, which Shapley's shares sum to.

    `permutations` are those sampled; 0 where the shares are exact, and their errors Monte-Carlo ones.
    """

    image: str
    digest: str
    total: float
    total_se: float
    permutations: int
    shares: tuple[GroupShare, ...]
    additivity: tuple[PairExcess, ...]

    def document(self, **context: Any) -> dict[str, Any]:
        """The line of `guda score --shares --json`; `context` says how it was computed."""
        found = plain({"schema": SCHEMA, **asdict(self), "exact": not self.permutations, **context})
        assert isinstance(found, dict)
        return found


def share_rows(shares: Sequence[GroupShare]) -> list[tuple[str, ...]]:
    """Cells under `COLUMNS`, the highest Shapley share first."""
    ordered = sorted(shares, key=lambda share: (-share.shapley, share.group))
    return [(s.group, *(_number(value) for value in list(asdict(s).values())[1:])) for s in ordered]


def pair_rows(pairs: Sequence[PairExcess]) -> list[tuple[str, ...]]:
    """Cells under `PAIR_COLUMNS`, the largest excess of either sign first."""
    ordered = sorted(pairs, key=lambda pair: (-abs(pair.excess), pair.groups))
    return [("+".join(pair.groups), _number(pair.excess), _number(pair.se)) for pair in ordered]


def _number(value: float) -> str:
    return UNKNOWN if finite(value) is None else significant(value, 3)
