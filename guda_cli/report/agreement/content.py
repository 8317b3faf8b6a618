"""What an agreement report says, as plain values: methods against the oracle, one table a weighting."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

METHOD, RANDOM, CEILING, IMPORTED = "method", "random", "ceiling", "imported"


class Interval(NamedTuple):
    """A mean over queries with its bootstrap 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class AgreementRow:
    """One line of the table: a method (or `random`, or the ceiling) against the oracle.

    ``metrics`` are by the names of the metric columns in `columns.COLUMNS`; ``ndcg@3:linear`` and
    ``ndcg@5:linear`` are for the other NDCG convention. Costs are forward-equivalents (a backward counts 2)
    and seconds; preparation is once for all groups, the rest is per query. ``speedup_*`` is LOGO's
    preparation divided by this method's.
    """

    name: str
    kind: str
    metrics: Mapping[str, Interval]
    prepare_forwards: float | None = None
    prepare_seconds: float | None = None
    query_forwards: float | None = None
    query_seconds: float | None = None
    speedup_forwards: float | None = None
    speedup_seconds: float | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True)
class AgreementTable:
    """All rows under one weighting.

    ``reliability`` is the correlation between two oracle seeds of the score matrix after removing row and
    column means; ``reliability_mean`` that of the mean over all seeds (Spearman-Brown). Both are None with
    one seed. ``remarks`` are sentences on what its columns lack.
    """

    weighting: str
    unit: str
    rows: tuple[AgreementRow, ...]
    reliability: float | None = None
    reliability_mean: float | None = None
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class BandPoint:
    """The ceiling within one band of timesteps: how well the oracle knows itself there."""

    t_low: int
    t_high: int
    metrics: Mapping[str, Interval]
    reliability: float | None


@dataclass(frozen=True)
class StepPoint:
    """Agreement of one operator after so many unlearning steps, all other settings alike."""

    operator: str
    weighting: str
    steps: int
    metrics: Mapping[str, Interval]


@dataclass(frozen=True)
class AgreementReport:
    """Everything an agreement report shows.

    ``groups`` are the columns judged; ``left_out`` those left out because settings were tuned on them.
    ``seeds`` are the oracle's. ``rbo_max`` is the largest truncated RBO there can be, 1 - 0.9^N.
    """

    title: str
    recipe_name: str
    recipe_yaml: str
    oracle: str
    seeds: tuple[int, ...]
    groups: tuple[str, ...]
    left_out: tuple[str, ...]
    queries: int
    centred: bool
    grid: str
    rbo_max: float
    created: str
    tables: tuple[AgreementTable, ...]
    bands: tuple[BandPoint, ...] = ()
    steps: tuple[StepPoint, ...] = ()
    logo_forwards: float | None = None
    logo_seconds: float | None = None
    warnings: tuple[str, ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)
